// Runs answers: sends the question, follows the generation, keeps what has come in the store, and stops it. An answer
// that had not ended when the page was closed goes on after the last entry that was kept.

import { JsonInputs } from '../client/everstream.js';
import { readLocal, writeLocal } from './local.js';
import { createRecorder } from './recorder.js';
import { isSignedOut } from './session.js';
import { applyEvent, describe, initialState, reasoningOf } from './state.js';

const SAVE_EVERY_MS = 1000;

// `onChange(run)` is called after each event, `onSignedOut()` if an answer can go on only after signing in. A run is { message, state, recorder, … }.
export function createAnswers({ client, store, onChange, onSignedOut }) {
  const runs = new Map();

  // Starts the message's generation, or goes on with it. The request id makes it safe to send the request again.
  // `isNew`: the time of its first token means something. `isKept`: whether it is in the store.
  function run(message, { isNew = false, isKept = true } = {}) {
    const hasBegun = message.text !== '' || message.outputs.length > 0;
    const state = initialState(isNew ? Date.now() : null, { hasBegun });
    const current = { message, state, recorder: createRecorder(), isNew, isKept, timer: 0, answer: null };
    runs.set(message.id, current);
    const onEvent = (event) => receive(current, event);
    const { inputs, model, requestId } = message.request ?? {};
    current.answer = message.generation
      ? client.follow(message.generation, { after: message.n, onEvent })
      : client.start(new JsonInputs(inputs), { model, requestId, onEvent });
    if (stops.has(message.generation) || stops.has(message.id)) stop(message.id);
    return current;
  }

  function receive(current, event) {
    const now = Date.now();
    if (event.type === 'failed' && isSignedOut(event.data)) {
      // It is kept as it is, and goes on in the next session.
      save(current);
      onSignedOut();
      return;
    }
    // What a new answer has said before this page was connected is no news.
    if (event.type === 'caught_up' && current.isNew && !current.state.reconnects) return;
    current.state = applyEvent(current.state, event, now);
    current.recorder.record(event, performance.now());
    keepContent(current.message, event);
    if (event.type === 'started') stops.rename(current.message.id, current.message.generation);
    if (current.state.end) end(current, now);
    if (event.type === 'started' || current.state.end) save(current);
    else current.timer ||= setTimeout(() => save(current), SAVE_EVERY_MS);
    onChange(current);
  }

  function end(current, now) {
    const { message, state } = current;
    const { at, ...known } = state.end;
    message.end = known;
    message.stats = describe(state, { now }).detail;
    runs.delete(message.id);
  }

  function save(current) {
    clearTimeout(current.timer);
    current.timer = 0;
    if (current.isKept) store.putMessage(current.message).catch(() => {});
  }

  // Repeated until the service has acknowledged it, also after a reload.
  function stop(id) {
    const current = runs.get(id);
    if (!current) return;
    const key = current.message.generation || id;
    stops.add(key);
    receive(current, { type: 'stopping', data: {} });
    const acknowledged = () => stops.remove(current.message.generation || key);
    current.answer.stop().then(acknowledged, acknowledged);
  }

  // Stops following, and leaves the generation running.
  function close(id) {
    const current = runs.get(id);
    if (!current) return;
    current.isKept = false;
    runs.delete(id);
    clearTimeout(current.timer);
    current.answer.close();
  }

  // Stops that the service had not acknowledged, of answers that are no longer here.
  function repeatStops() {
    for (const key of stops.all()) {
      if (![...runs.values()].some(({ message }) => message.id === key || message.generation === key)) {
        const acknowledged = () => stops.remove(key);
        client.stop(key).then(acknowledged, acknowledged);
      }
    }
  }

  window.addEventListener('pagehide', () => { for (const current of runs.values()) save(current); });
  return {
    run,
    stop,
    close,
    repeatStops,
    runOf: (id) => runs.get(id) ?? null,
    // For a message that is deleted.
    drop(id) {
      stop(id);
      close(id);
    },
  };
}

// The generations to be stopped; a message's id stands for one that has no id yet.
const STOPS = 'stops';
const stops = {
  all: () => readLocal(STOPS, []),
  has: (key) => Boolean(key) && stops.all().includes(key),
  add: (key) => writeLocal(STOPS, [...new Set([...stops.all(), key])]),
  remove(key) {
    if (stops.has(key)) writeLocal(STOPS, stops.all().filter((each) => each !== key));
  },
  rename(key, to) {
    if (!stops.has(key)) return;
    stops.remove(key);
    stops.add(to);
  },
};

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
