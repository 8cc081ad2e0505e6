// The page's state of one generation, and how each event changes it. Pure: no DOM, no network.

export const TERMINAL = new Set(['done', 'cancelled', 'failed']);

// phase: idle, connecting, queued, streaming, reconnecting, stopping, done, cancelled, failed
export function initialState() {
  return { phase: 'idle', text: '', lastId: '', position: 0, model: '', finishReason: '', usage: null, error: '' };
}

export function isTerminal(state) {
  return TERMINAL.has(state.phase);
}

// event: { type, id, data, json }, with data parsed from json. The page's own events have neither: connecting, lost,
// stopping.
export function applyEvent(state, event) {
  if (isTerminal(state) || isRepeated(state, event)) return state;
  const next = { ...state, lastId: event.id || state.lastId };
  switch (event.type) {
    case 'message':
      return { ...next, phase: unlessStopping(state, 'streaming'), text: state.text + shown(event) };
    case 'open':
      return { ...next, phase: unlessStopping(state, 'connecting'), model: event.data.model };
    case 'queued':
      return {
        ...next,
        phase: unlessStopping(state, event.data.position ? 'queued' : 'connecting'),
        position: event.data.position,
      };
    case 'resumed':
      return { ...next, phase: unlessStopping(state, 'streaming') };
    case 'connecting':
      return { ...next, phase: unlessStopping(state, state.text ? 'streaming' : 'connecting') };
    case 'lost':
      return { ...next, phase: unlessStopping(state, 'reconnecting') };
    case 'stopping':
      return { ...next, phase: 'stopping' };
    case 'done':
      return { ...next, phase: 'done', finishReason: event.data.finish_reason, usage: event.data.usage };
    case 'cancelled':
      return { ...next, phase: 'cancelled', error: event.data.reason === 'abandoned' ? 'nobody was reading' : '' };
    case 'failed':
      return { ...next, phase: 'failed', error: event.data.message };
    default:
      return next;
  }
}

// An output that is only a string, `text`, is text to be joined. Any other is a line of JSON, as the server sent it:
// JavaScript would round large numbers.
function shown({ data, json }) {
  const isText = typeof data.text === 'string' && Object.keys(data).length === 1;
  return isText ? data.text : `${json}\n`;
}

export function describe(state) {
  switch (state.phase) {
    case 'idle': return 'Ready';
    case 'connecting': return 'Connecting…';
    case 'queued': return `Queued, position ${state.position}`;
    case 'streaming': return 'Streaming';
    case 'reconnecting': return 'Connection lost, reconnecting…';
    case 'stopping': return 'Stopping…';
    case 'cancelled': return state.error ? `Stopped: ${state.error}` : 'Stopped';
    case 'failed': return `Failed: ${state.error}`;
    case 'done': return `Done${ending(state)}`;
    default: return state.phase;
  }
}

function ending(state) {
  const count = state.usage && state.usage.completion_tokens;
  const tokens = state.usage ? `, ${count} ${count === 1 ? 'token' : 'tokens'}` : '';
  return state.finishReason === 'length' ? `: stopped at the length limit${tokens}` : tokens;
}

// After Stop is pressed, only a terminal event changes the phase.
function unlessStopping(state, phase) {
  return state.phase === 'stopping' ? 'stopping' : phase;
}

// An id is <generation>.<n>. The server never repeats an entry, but if it did, the page would ignore the repeat.
function isRepeated(state, event) {
  return Boolean(event.id) && Boolean(state.lastId) && number(event.id) <= number(state.lastId);
}

function number(id) {
  const n = Number(id.slice(id.lastIndexOf('.') + 1));
  return Number.isNaN(n) ? Infinity : n;
}
