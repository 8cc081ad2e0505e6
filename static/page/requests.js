// What a question to a model becomes: the inputs as JSON text, because JavaScript would round large numbers. Pure.

import { chatMessages } from './conversation.js';
import { fieldsOf, isChat, toJson } from './form.js';

// Shown in the drawer, in this order, as far as the model has them.
export const SETTINGS = {
  max_tokens: 'Maximum length (tokens)',
  temperature: 'Temperature',
  top_p: 'Top p',
  top_k: 'Top k',
  min_p: 'Min p',
  presence_penalty: 'Presence penalty',
  frequency_penalty: 'Frequency penalty',
  repetition_penalty: 'Repetition penalty',
  seed: 'Seed',
  stop: 'Stop texts (JSON)',
};

// The fields of those settings. Without an example, as what is left empty is the model's own default.
export function settingFields(model) {
  if (!isChat(model)) return [];
  return fieldsOf(model.inputs)
    .filter(({ name }) => name in SETTINGS)
    .map((field) => ({ ...field, label: SETTINGS[field.name], example: '' }))
    .sort((a, b) => order(a) - order(b));
}

function order({ name }) {
  return Object.keys(SETTINGS).indexOf(name);
}

export function hasHistory(model) {
  return isChat(model) && 'messages' in model.inputs;
}

export function canContinueWith(model) {
  return hasHistory(model) && 'continue_final_message' in model.inputs;
}

// `path`: up to the question. Throws an Error that names the setting.
export function chatInputs(model, conversation, path) {
  const question = path.at(-1).text;
  const options = hasHistory(model)
    ? { messages: chatMessages(conversation, path) }
    : { prompt: question, ...('system' in model.inputs && conversation.system.trim() ? { system: conversation.system } : {}) };
  return withSettings(model, conversation, options);
}

// `path`: up to the answer that goes on.
export function continuingInputs(model, conversation, path) {
  const options = {
    messages: chatMessages(conversation, path),
    continue_final_message: true,
    add_generation_prompt: false,
  };
  return withSettings(model, conversation, options);
}

// A setting that was never touched is left out, as an empty one is.
function withSettings(model, { settings }, options) {
  const fields = settingFields(model);
  return toJson(fields, Object.fromEntries(fields.map(({ name }) => [name, settings[name] ?? ''])), options);
}

export function formInputs(model, values) {
  return toJson(fieldsOf(model.inputs), values, {});
}
