// The settings of a conversation: system prompt and sampling. What is left empty is the model's own default.

import { readValues, renderFields } from './form.js';
import { settingFields } from './requests.js';
import { setText } from './dom.js';

// `onChange({ system, settings })`. Returns { show, open }.
export function createDrawer(dialog, onChange) {
  const form = dialog.querySelector('form');
  const system = form.elements.system;
  const container = dialog.querySelector('#settings');
  const note = dialog.querySelector('.note');
  let fields = [];
  let shown = '';

  // Only the settings that this model has; others stay as they are, for another model.
  let settings = {};

  function read() {
    settings = { ...settings, ...readValues(container, fields) };
    onChange({ system: system.value, settings });
  }

  form.addEventListener('input', read);
  dialog.querySelector('[name=reset]').addEventListener('click', () => {
    settings = {};
    system.value = '';
    render();
    read();
  });
  // A click beside it, on the backdrop, closes it.
  dialog.addEventListener('click', ({ target }) => { if (target === dialog) dialog.close(); });

  function render() {
    renderFields(container, fields, Object.fromEntries(fields.map(({ name }) => [name, settings[name] ?? ''])));
  }

  return {
    show(conversation, model) {
      const state = JSON.stringify([conversation.id, model?.name, model?.inputs]);
      if (state === shown) return;
      shown = state;
      fields = model ? settingFields(model) : [];
      settings = { ...conversation.settings };
      system.value = conversation.system;
      system.disabled = Boolean(model) && !('system' in model.inputs || 'messages' in model.inputs);
      setText(note, system.disabled ? 'This model takes no system prompt.' : '');
      render();
    },
    open: () => dialog.showModal(),
  };
}
