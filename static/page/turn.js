// One message on the page: what it shows, and its buttons. `actions` are the page's: what a button does to the
// conversation.

import { createMarkdownView } from '../markdown.js';
import { copy } from '../markdown/copying.js';
import { answerText, canContinue, questionText } from './conversation.js';
import { h, iconButton, setText } from './dom.js';
import { createMediaView, splitOutput } from './media.js';
import { describeEnd } from './state.js';

// Returns { element, update({ message, versions }) }.
export function createQuestion(actions) {
  const text = h('div', { class: 'bubble', dir: 'auto' });
  const edit = iconButton('edit', 'Edit and send again', () => startEditing());
  const bar = h('div', { class: 'bar' });
  const element = h('article', { class: 'turn question', 'aria-label': 'You' }, text, bar);
  let message = null;
  bar.append(
    createVersions(() => message, actions), edit,
    copyButton(() => questionText(message)),
    iconButton('delete', 'Delete from here', () => actions.deleteFrom(message)),
  );

  function startEditing() {
    const area = h('textarea', { value: message.text, rows: 3, dir: 'auto', 'aria-label': 'Edit the message' });
    const form = h('form', { class: 'edit' }, area, h(
      'div', { class: 'buttons' },
      h('button', { type: 'submit' }, 'Send'),
      h('button', { type: 'button', class: 'secondary', on: { click: () => stopEditing() } }, 'Cancel'),
    ));
    function stopEditing() {
      form.replaceWith(text);
      bar.hidden = false;
      edit.focus();
    }
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (!area.value.trim()) return;
      stopEditing();
      actions.resend(message, area.value);
    });
    form.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        stopEditing();
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    text.replaceWith(form);
    bar.hidden = true;
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  return {
    element,
    close() {},
    update(given) {
      message = given.message;
      setText(text, questionText(message) || '(nothing was filled in)');
      edit.hidden = message.values !== null || !actions.canSend;
      bar.querySelector('.versions').update(given.versions);
    },
  };
}

// Returns { element, update({ message, run, versions, isLast, now, isOnline }) }. Cheap if nothing has changed.
export function createAnswer(actions) {
  const thought = h('div', { class: 'thought', dir: 'auto' });
  const thoughts = h('details', { class: 'thoughts', hidden: true }, h('summary', {}, 'Thoughts'), thought);
  const body = h('div', { class: 'answer', dir: 'auto' });
  const outputs = h('pre', { class: 'outputs', hidden: true });
  const media = h('div', { class: 'media' });
  const mediaView = createMediaView(media);
  const note = h('p', { class: 'note' });
  const bar = h('div', { class: 'bar' });
  const element = h('article', { class: 'turn reply', 'aria-label': 'Answer' }, thoughts, body, outputs, media, note, bar);
  const view = createMarkdownView(body);
  let message = null;
  let shown = 0;
  let lastLine = '';
  let isFinished = false;

  const regenerate = iconButton('again', 'Answer again', () => actions.regenerate(message));
  const goOn = h('button', { type: 'button', class: 'secondary', on: { click: () => actions.continueAnswer(message) } }, 'Continue');
  const share = iconButton('share', 'Copy a link to this answer', async () => {
    flash(share, await copy(actions.linkTo(message)) ? 'Link copied' : 'Could not copy');
  });
  bar.append(createVersions(() => message, actions), copyButton(() => sourceOf(message)), regenerate, share, goOn);

  function showContent() {
    const text = answerText(message);
    view.update(text);
    if (message.end && !isFinished) view.finish();
    isFinished = Boolean(message.end);
    body.hidden = !text && shown < message.outputs.length;
    if (message.reasoning) {
      thoughts.hidden = false;
      setText(thought, message.reasoning);
    }
    for (; shown < message.outputs.length; shown += 1) showOutput(message.outputs[shown]);
  }

  function showOutput(json) {
    const { media: found, rest } = splitOutput(JSON.parse(json));
    for (const piece of found) mediaView.add(piece);
    const line = found.length ? JSON.stringify(rest) : json;
    // What comes with each piece of media, such as its sample rate, is shown once.
    if (line === '{}' || (found.length && line === lastLine)) return;
    lastLine = line;
    outputs.hidden = false;
    outputs.append(`${line}\n`);
  }

  return {
    element,
    close: () => mediaView.close(),
    update({ message: given, run, versions, isLast, now, isOnline }) {
      message = given;
      showContent();
      const isBusy = !message.end;
      element.setAttribute('aria-busy', String(isBusy));
      setText(note, noteOf(message, run, { now, isOnline }));
      note.hidden = !note.textContent;
      note.classList.toggle('bad', message.end?.type === 'failed');
      bar.hidden = isBusy;
      regenerate.hidden = !actions.canSend || message.parent === null;
      goOn.hidden = !(isLast && actions.canContinue && canContinue(message));
      share.hidden = !message.generation;
      bar.querySelector('.versions').update(versions);
    },
  };
}

// Under the answer, once it has ended; before, the status line says it.
function noteOf(message, run, context) {
  if (run || !message.end) return '';
  const { text } = describeEnd(message.end, context);
  return [message.end.type === 'done' && message.end.finish_reason !== 'length' ? '' : text, message.stats].filter(Boolean).join(' · ');
}

function sourceOf(message) {
  return answerText(message) || message.outputs.join('\n');
}

function copyButton(textOf) {
  const button = iconButton('copy', 'Copy', async () => flash(button, await copy(textOf()) ? 'Copied' : 'Could not copy'));
  return button;
}

// Says for a moment what a button has done.
function flash(button, text) {
  const label = h('span', { class: 'flash', role: 'status' }, text);
  button.append(label);
  setTimeout(() => label.remove(), 1500);
}

// ‹ 2 of 3 ›: other versions of a message.
function createVersions(getMessage, actions) {
  const count = h('span', { class: 'detail' });
  let versions = [];
  const move = (by) => actions.choose(versions[versions.findIndex(({ id }) => id === getMessage().id) + by]);
  const before = iconButton('before', 'Previous version', () => move(-1));
  const after = iconButton('after', 'Next version', () => move(1));
  const element = h('span', { class: 'versions' }, before, count, after);
  element.update = (given) => {
    versions = given;
    const at = versions.findIndex(({ id }) => id === getMessage().id);
    element.hidden = versions.length < 2;
    before.disabled = at === 0;
    after.disabled = at === versions.length - 1;
    setText(count, `${at + 1} of ${versions.length}`);
  };
  return element;
}
