// Runs answers: sends the question, follows the generation, keeps what has come in the store, and stops it. An answer
// that had not ended when the page was closed goes on after the last entry that was kept.

import { JsonInputs } from '../client/everstream.js';
import { readLocal, writeLocal } from './local.js';
import { createRecorder } from './recorder.js';
import { applyEvent, describe, initialState, reasoningOf } from './state.js';

const SAVE_EVERY_MS = 1000;
const STOPS = 'stops';

// `onChange(run)` is called after each event. A run is { message, state, recorder, … }.
export function createAnswers({ client, store, onChange }) {
  const runs = new Map();

  // Starts the message's generation, or goes on with it. The request id makes it safe to send the request again.
  // `isNew`: the time of its first token means something. `isKept`: whether it is in the store.
  function run(message, { isNew = false, isKept = true } = {}) {
    const state = initialState(isNew ? Date.now() : null);
    const current = { message, state, recorder: createRecorder(), isNew, isKept, timer: 0, answer: null };
    runs.set(message.id, current);
    const onEvent = (event) => receive(current, event);
    const { inputs, model, requestId } = message.request ?? {};
    current.answer = message.generation
      ? client.follow(message.generation, { after: message.n, onEvent })
      : client.start(new JsonInputs(inputs), { model, requestId, onEvent });
    if (readLocal(STOPS, []).includes(message.id)) stop(message.id);
    return current;
  }

  function receive(current, event) {
    const now = Date.now();
    // What a new answer has said before this page was connected is no news.
    if (event.type === 'caught_up' && current.isNew && !current.state.reconnects) return;
    current.state = applyEvent(current.state, event, now);
    current.recorder.record(event, performance.now());
    keepContent(current.message, event);
    if (event.type === 'started' || current.state.end) end(current, now);
    else current.timer ||= setTimeout(() => save(current), SAVE_EVERY_MS);
    onChange(current);
  }

  function end(current, now) {
    const { message, state } = current;
    if (state.end) {
      const { at, ...known } = state.end;
      message.end = known;
      message.stats = describe(state, { now }).detail;
      forgetStop(message.id);
      runs.delete(message.id);
    }
    save(current);
  }

  function save(current) {
    clearTimeout(current.timer);
    current.timer = 0;
    if (current.isKept) store.putMessage(current.message).catch(() => {});
  }

  // Retried until the server has acknowledged it, also after a reload.
  function stop(id) {
    const current = runs.get(id);
    if (!current) return;
    writeLocal(STOPS, [...new Set([...readLocal(STOPS, []), id])]);
    receive(current, { type: 'stopping', data: {} });
    current.answer.stop().catch(() => {});
  }

  function forgetStop(id) {
    const stops = readLocal(STOPS, []);
    if (stops.includes(id)) writeLocal(STOPS, stops.filter((each) => each !== id));
  }

  window.addEventListener('pagehide', () => { for (const current of runs.values()) save(current); });
  return {
    run,
    stop,
    runOf: (id) => runs.get(id) ?? null,
    // Stops following, for a message that is deleted.
    drop(id) {
      const current = runs.get(id);
      if (!current) return;
      stop(id);
      current.isKept = false;
    },
  };
}

function keepContent(message, { type, n, data, json }) {
  if (typeof n === 'number') message.n = n;
  if (type === 'started') message.generation = data.generation;
  if (type !== 'message') return;
  if (Array.isArray(data.choices)) {
    message.text += data.text ?? '';
    message.reasoning += reasoningOf(data);
  } else if (isText(data)) message.text += data.text;
  else message.outputs.push(json);
}

// An output that is only a string, `text`, is text to be joined. Any other stays JSON, as the server sent it: JavaScript
// would round large numbers.
function isText(data) {
  return typeof data.text === 'string' && Object.keys(data).length === 1;
}
