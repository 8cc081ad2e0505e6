// The page: a prompt or a form in, the answer out. The current generation is kept in sessionStorage, so a reload resumes
// it.

import { fieldsOf, initialValues, isChat, readValues, renderFields, toJson } from './form.js';
import { labelOf, obstacle, watchModels } from './models.js';
import { applyEvent, describe, initialState, isTerminal } from './state.js';
import { backoff, followGeneration } from './stream.js';

// One screen frame: the eye can't tell apart tokens within it.
const FLUSH_MS = 16;
const STORED = 'everstream.generation';

mountPage(document.getElementById('chat'));

function mountPage(element) {
  const form = element.querySelector('form');
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
    renderSoon();
  }

  // Many tokens may arrive within one frame, so render once.
  function renderSoon() {
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
    send.disabled = busy || !request.canSend();
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

  async function start() {
    begin();
    const attempt = current;
    const given = request.given();
    let body;
    try {
      body = request.body({ request_id: newRequestId() });
    } catch (error) {
      apply({ type: 'failed', id: '', data: { message: error.message } });
      return;
    }
    const id = await submit(body, apply, () => current !== attempt || isTerminal(state));
    if (!id) return;
    if (state.phase === 'stopping') cancel(id);
    sessionStorage.setItem(STORED, JSON.stringify({ id, ...given }));
    follow(id);
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!send.disabled && !request.isEmpty()) start();
  });

  stop.addEventListener('click', () => {
    apply({ type: 'stopping', id: '' });
    if (current.id) cancel(current.id);
  });

  const stored = JSON.parse(sessionStorage.getItem(STORED) || 'null');
  const request = mountRequest(form, stored || {}, renderSoon);
  if (stored) {
    begin();
    follow(stored.id);
  }
}

// What the user asks for: a prompt for a chat model, or the fields of another model's form. `stored` is the `given` of
// an earlier request.
function mountRequest(form, stored, onChange) {
  const prompt = form.elements.prompt;
  const promptField = form.querySelector('#prompt-field');
  const container = form.querySelector('#fields');
  const hint = form.querySelector('.hint');
  const select = form.querySelector('#model');
  const drafts = new Map(stored.values ? [[stored.model, stored.values]] : []);

  let models = [];
  let chosen = null;
  let fields = [];
  let rendered = '';

  function choose(name) {
    if (fields.length) drafts.set(chosen.name, readValues(container, fields));
    chosen = models.find((model) => model.name === name) || models[0];
    select.value = chosen.name;
    renderChoice();
  }

  // Does nothing if the model is the same as before, so that polling leaves alone what the user types.
  function renderChoice() {
    const state = JSON.stringify([chosen.name, chosen.inputs, obstacle(chosen)]);
    if (state !== rendered) {
      rendered = state;
      fields = isChat(chosen) ? [] : fieldsOf(chosen.inputs);
      promptField.hidden = !isChat(chosen);
      hint.hidden = !isChat(chosen);
      container.hidden = isChat(chosen);
      // A disabled field is not validated.
      prompt.disabled = !isChat(chosen);
      if (obstacle(chosen)) container.textContent = obstacle(chosen);
      else renderFields(container, fields, { ...initialValues(fields), ...drafts.get(chosen.name) });
    }
    onChange();
  }

  function show(found) {
    models = found;
    select.replaceChildren(...models.map((model) => new Option(labelOf(model), model.name)));
    form.querySelector('#models').hidden = models.length < 2;
    choose(chosen ? chosen.name : stored.model);
  }

  const askAgain = watchModels(show, () => chosen.state === 'ready');
  select.addEventListener('change', () => {
    choose(select.value);
    askAgain();
  });

  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  prompt.value = stored.prompt || prompt.value;
  // Until the models are known, the page is a chat with the first one.
  const isForChat = () => chosen === null || isChat(chosen);
  const option = () => (models.length > 1 ? { model: chosen.name } : {});
  return {
    canSend: () => chosen === null || !obstacle(chosen),
    isEmpty: () => isForChat() && !prompt.value.trim(),
    given: () => ({ ...option(), ...(isForChat() ? { prompt: prompt.value } : { values: readValues(container, fields) }) }),
    body: (options) => (isForChat()
      ? JSON.stringify({ ...options, ...option(), prompt: prompt.value, flush_ms: FLUSH_MS })
      : toJson(fields, readValues(container, fields), { ...options, ...option() })),
  };
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
      body,
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
