// The page: prompt in, answer out. The current generation is kept in sessionStorage, so a reload resumes it.

import { applyEvent, describe, initialState, isTerminal } from './state.js';
import { backoff, followGeneration } from './stream.js';

// One screen frame: the eye can't tell apart tokens within it.
const FLUSH_MS = 16;
const STORED = 'everstream.generation';

mountChat(document.getElementById('chat'));

function mountChat(element) {
  const form = element.querySelector('form');
  const prompt = form.elements.prompt;
  const send = form.querySelector('[type=submit]');
  const stop = form.elements.stop;
  const status = element.querySelector('[role=status]');
  const answer = element.querySelector('.answer');

  let state = initialState();
  let shown = answer.appendChild(document.createTextNode(''));
  let frame = 0;
  let current = { id: '', end: () => {} };

  function apply(event) {
    state = applyEvent(state, event);
    // Many tokens may arrive within one frame, so render once.
    if (!frame) frame = requestAnimationFrame(render);
  }

  function render() {
    frame = 0;
    if (!state.text.startsWith(shown.data)) shown.data = '';
    const atBottom = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
    shown.appendData(state.text.slice(shown.data.length));
    if (atBottom) window.scrollTo(0, document.body.scrollHeight);
    const busy = state.phase !== 'idle' && !isTerminal(state);
    const text = describe(state);
    if (status.textContent !== text) status.textContent = text;
    status.dataset.phase = state.phase;
    answer.setAttribute('aria-busy', String(busy));
    send.disabled = busy;
    stop.disabled = !busy || state.phase === 'stopping';
  }

  function begin() {
    current.end();
    current = { id: '', end: () => {} };
    state = initialState();
    apply({ type: 'connecting', id: '' });
  }

  function follow(id) {
    current = { id, end: followGeneration(`/generations/${id}/events`, apply) };
  }

  async function start(text) {
    begin();
    const attempt = current;
    const body = { prompt: text, request_id: newRequestId(), flush_ms: FLUSH_MS };
    const id = await submit(body, apply, () => current !== attempt || isTerminal(state));
    if (!id) return;
    if (state.phase === 'stopping') cancel(id);
    sessionStorage.setItem(STORED, JSON.stringify({ id, prompt: text }));
    follow(id);
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!send.disabled && prompt.value.trim()) start(prompt.value);
  });

  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  stop.addEventListener('click', () => {
    apply({ type: 'stopping', id: '' });
    if (current.id) cancel(current.id);
  });

  const stored = JSON.parse(sessionStorage.getItem(STORED) || 'null');
  if (stored) {
    prompt.value = stored.prompt;
    begin();
    follow(stored.id);
  }
}

// Starts a generation and returns its id, or null if it was refused or given up. The request id makes retries safe.
async function submit(body, apply, isGivenUp) {
  for (let failures = 0; !isGivenUp(); failures += 1) {
    const answer = await post(body);
    if (answer.status === 201) return answer.body.id;
    if (answer.body && !answer.retry) {
      apply({ type: 'failed', id: '', data: answer.body.error });
      return null;
    }
    apply({ type: 'lost', id: '' });
    await new Promise((resolve) => { setTimeout(resolve, backoff(failures)); });
  }
  return null;
}

async function post(body) {
  try {
    const response = await fetch('/generations', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    });
    const parsed = await response.json();
    return { status: response.status, body: parsed, retry: response.headers.has('Retry-After') };
  } catch {
    // No response, or one from a proxy: it is safe to send the same request again.
    return { status: 0, body: null, retry: true };
  }
}

async function cancel(id) {
  for (let failures = 0; failures < 5; failures += 1) {
    try {
      const response = await fetch(`/generations/${id}`, { method: 'DELETE' });
      if (response.status < 500) return;
    } catch {
      // Retried below.
    }
    await new Promise((resolve) => { setTimeout(resolve, backoff(failures)); });
  }
}

// 128 random bits; crypto.randomUUID needs a secure origin.
function newRequestId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
