// Where people ask: a text for a chat model, or a form for any other; Send and Stop.

import { fieldsOf, initialValues, isChat, readValues, renderFields } from './form.js';
import { obstacle } from './models.js';

const MAX_ROWS_PX = 240;

// `actions`: { send({ text, values }), stop() }. Returns { show, focus, setText }.
export function createComposer(form, actions) {
  const prompt = form.elements.prompt;
  const promptField = form.querySelector('#prompt-field');
  const container = form.querySelector('#fields');
  const send = form.elements.send;
  const stop = form.elements.stop;
  const drafts = new Map();
  let model = null;
  let fields = [];
  let rendered = '';
  let isBusy = false;
  let isStarting = true;

  // Does nothing if the model is the same as before, so that polling leaves alone what people type.
  function showModel(given) {
    if (model && fields.length && !container.hidden) drafts.set(model.name, readValues(container, fields));
    model = given;
    const state = JSON.stringify([model.name, model.inputs, obstacle(model)]);
    if (state === rendered) return;
    rendered = state;
    fields = isChat(model) ? [] : fieldsOf(model.inputs);
    promptField.hidden = !isChat(model);
    container.hidden = isChat(model);
    // A disabled field is not validated.
    prompt.disabled = !isChat(model);
    if (obstacle(model)) container.textContent = obstacle(model);
    else renderFields(container, fields, { ...initialValues(fields), ...drafts.get(model.name) });
  }

  function renderButtons() {
    send.hidden = isBusy;
    stop.hidden = !isBusy;
    send.disabled = isStarting || Boolean(model && obstacle(model)) || (isText() && !prompt.value.trim());
  }

  // Until the models are known, the page is a chat with the first one.
  function isText() {
    return model === null || isChat(model);
  }

  function grow() {
    prompt.style.blockSize = 'auto';
    prompt.style.blockSize = `${Math.min(prompt.scrollHeight + 2, MAX_ROWS_PX)}px`;
  }

  prompt.addEventListener('input', () => {
    grow();
    renderButtons();
  });
  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (isBusy || send.disabled) return;
    if (isText()) {
      const text = prompt.value;
      if (!text.trim()) return;
      prompt.value = '';
      grow();
      actions.send({ text, values: null });
    } else actions.send({ text: '', values: readValues(container, fields) });
  });
  stop.addEventListener('click', () => {
    actions.stop();
    prompt.focus();
  });

  return {
    show(given) {
      if (given.model) showModel(given.model);
      ({ isBusy, isStarting } = given);
      stop.disabled = given.isStopping;
      renderButtons();
    },
    focus: () => (isText() ? prompt.focus() : container.querySelector('input, textarea')?.focus()),
    setText(text) {
      prompt.value = text;
      grow();
      renderButtons();
    },
  };
}
