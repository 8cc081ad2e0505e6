// What is known of one answer, how each event changes it, and what that means in words. Pure: no DOM, no network.
//
// The state holds facts; the phase follows from them. So it can't say "Streaming" because somebody forgot to reset it.

const TERMINAL = new Set(['done', 'cancelled', 'failed']);
// No token for so long is worth saying.
const QUIET_MS = 3000;
const CAUGHT_UP_SHOWN_MS = 5000;
// The rate of an answer that took less says nothing.
const SHORT_MS = 500;
// The rate follows the last tokens with this time constant.
const RATE_MS = 2000;

// `hasBegun`: some of the answer was seen before, by an earlier page.
export function initialState(sentAt = null, { hasBegun = false } = {}) {
  return {
    sentAt,
    isStopping: false,
    // sending, connecting, open or lost.
    connection: 'sending',
    // While it is lost: { attempt, retryAt, reason: { status, code, message } }.
    loss: null,
    place: null,
    engine: { state: 'ready', message: '', since: null },
    worker: null,
    // Up to this entry, the answer was generated before this connection.
    catchUpTo: 0,
    caughtUp: null,
    pieces: hasBegun ? 1 : 0,
    isReasoning: false,
    lastN: 0,
    firstAt: null,
    lastAt: null,
    intervalMs: null,
    reconnects: 0,
    resumes: 0,
    end: null,
  };
}

// event: { type, n, data }, from everstream-client or, for `stopping`, from the page. `now` in milliseconds.
export function applyEvent(state, event, now) {
  if (state.end) return state;
  const { type, data } = event;
  const change = CHANGES[TERMINAL.has(type) ? 'end' : type];
  return change ? { ...state, ...change(state, data, now, event) } : state;
}

const CHANGES = {
  stopping: () => ({ isStopping: true }),
  connecting: (state) => ({ connection: state.connection === 'sending' ? 'sending' : 'connecting' }),
  started: () => ({ connection: 'connecting', loss: null }),
  connected: (state, { worker, last }, now) => ({
    connection: 'open',
    loss: null,
    worker,
    catchUpTo: last,
    // A silence is counted from here on.
    lastAt: state.pieces ? state.lastAt ?? now : null,
  }),
  reconnecting: (state, { attempt, delay_ms: delayMs, reason }, now) => ({
    connection: 'lost',
    loss: { attempt, retryAt: now + delayMs, reason },
    reconnects: state.reconnects + (attempt === 1 ? 1 : 0),
    engine: { state: 'ready', message: '', since: null },
  }),
  caught_up: (state, { count }, now) => ({ caughtUp: { count, at: now } }),
  queued: (state, { position, length }) => ({ place: position ? { position, length } : null }),
  engine: (state, { state: what, message }, now) => ({ engine: { state: what, message, since: sinceWhen(state, what, now) } }),
  resumed: (state) => ({ resumes: state.resumes + 1, place: null }),
  message: (state, data, now, { n }) => ({
    ...timed(state, n, now),
    pieces: state.pieces + 1,
    isReasoning: reasoningOf(data) !== '',
    lastN: n,
    place: null,
  }),
  end: (state, data, now, { type }) => ({ end: { ...data, type, at: now } }),
};

function sinceWhen({ engine }, what, now) {
  return engine.state === what ? engine.since : now;
}

// What was generated before this connection comes in a burst, which says nothing about the rate.
function timed(state, n, now) {
  const firstAt = state.firstAt ?? now;
  if (n <= state.catchUpTo || state.lastAt === null) return { firstAt, lastAt: now };
  const passed = Math.max(now - state.lastAt, 0.1);
  // A pause is no slow token.
  if (passed > QUIET_MS) return { firstAt, lastAt: now };
  const weight = 1 - Math.exp(-passed / RATE_MS);
  const before = state.intervalMs ?? passed;
  return { firstAt, lastAt: now, intervalMs: before + weight * (passed - before) };
}

// sending, connecting, queued, loading, thinking, streaming, waiting, restarting, reconnecting, offline, stopping, done,
// cancelled, failed
export function phaseOf(state, { now, isOnline = true }) {
  if (state.end) return state.end.type;
  if (state.isStopping) return 'stopping';
  if (state.connection === 'lost') return isOnline ? 'reconnecting' : 'offline';
  if (state.connection === 'sending') return 'sending';
  const hasBegun = state.pieces > 0;
  if (state.engine.state !== 'ready') return hasBegun ? 'restarting' : 'loading';
  if (state.place) return hasBegun ? 'restarting' : 'queued';
  if (state.connection === 'connecting') return 'connecting';
  if (!hasBegun || state.isReasoning) return 'thinking';
  return state.lastAt !== null && now - state.lastAt > QUIET_MS ? 'waiting' : 'streaming';
}

// What a chat model thinks aloud before it answers.
export function reasoningOf({ choices }) {
  const own = Array.isArray(choices) ? choices.filter(({ index = 0 }) => index === 0) : [];
  return own.map(({ reasoning = '' }) => reasoning).join('');
}

// { text, detail }: the phase in words, and figures that change all the time.
export function describe(state, context) {
  const phase = phaseOf(state, context);
  return { phase, ...WORDS[phase](state, context.now) };
}

// The same of an answer of which only the end is known.
export function describeEnd(end, context) {
  return describe({ ...initialState(), end }, context);
}

const WORDS = {
  sending: () => ({ text: 'Sending…', detail: '' }),
  connecting: () => ({ text: 'Connecting…', detail: '' }),
  queued: ({ place }) => ({ text: `Queued: ${place.position} of ${place.length}`, detail: '' }),
  loading: ({ engine }, now) => ({ text: 'Loading the model…', detail: joined(engine.message, since(engine.since, now)) }),
  thinking: (state, now) => ({ text: 'Thinking…', detail: since(state.sentAt, now) }),
  streaming: (state, now) => ({ text: 'Streaming', detail: joined(speed(state), firstToken(state), caughtUp(state, now)) }),
  waiting: (state, now) => ({ text: 'Waiting for the next token', detail: since(state.lastAt, now) }),
  restarting: ({ engine }, now) => ({
    text: 'The engine is restarting; the answer will go on from here',
    detail: joined(engine.message, since(engine.since, now)),
  }),
  reconnecting: ({ loss }, now) => ({
    text: lossText(loss.reason),
    detail: `attempt ${loss.attempt}${loss.retryAt - now >= 1000 ? `, in ${seconds(loss.retryAt - now)}` : ''}`,
  }),
  offline: ({ loss }) => ({ text: 'Offline: the answer goes on when the network is back', detail: `attempt ${loss.attempt}` }),
  stopping: () => ({ text: 'Stopping…', detail: '' }),
  done: (state) => ({
    text: state.end.finish_reason === 'length' ? 'Done: stopped at the length limit' : 'Done',
    detail: joined(tokens(state), average(state), firstToken(state)),
  }),
  cancelled: ({ end }) => ({ text: end.reason === 'abandoned' ? 'Stopped: nobody was reading' : 'Stopped', detail: '' }),
  failed: ({ end }) => ({ text: `Failed: ${end.message}`, detail: '' }),
};

// A refusal that is not for good is worth naming; otherwise it is the connection.
function lossText({ status, code, message }) {
  if (status === 401 || status === 403) return `Sign in again: the server answered ${status}`;
  if (status >= 400) return `Waiting, because ${message}`;
  if (code === 'not_everstream') return `Reconnecting: ${message}`;
  return code === 'connection_lost' ? 'Connection lost, reconnecting' : `Connection lost (${message}), reconnecting`;
}

function joined(...parts) {
  return parts.filter(Boolean).join(' · ');
}

function seconds(ms) {
  return ms < 9950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}

function since(at, now) {
  return at === null || now - at < 1000 ? '' : `${Math.floor((now - at) / 1000)} s`;
}

function speed({ intervalMs }) {
  return intervalMs ? `${rate(1000 / intervalMs)} tokens/s` : '';
}

function rate(perSecond) {
  return perSecond < 9.95 ? perSecond.toFixed(1) : String(Math.round(perSecond));
}

function firstToken({ sentAt, firstAt }) {
  return sentAt !== null && firstAt !== null ? `first token after ${seconds(firstAt - sentAt)}` : '';
}

function caughtUp({ caughtUp: found }, now) {
  if (!found || now - found.at > CAUGHT_UP_SHOWN_MS) return '';
  return `caught up ${found.count} ${found.count === 1 ? 'token' : 'tokens'}`;
}

function tokens({ end }) {
  const count = end.usage?.completion_tokens;
  return count === undefined ? '' : `${count} ${count === 1 ? 'token' : 'tokens'}`;
}

// Only of an answer that was seen from the beginning.
function average({ end, sentAt, firstAt }) {
  const count = end.usage?.completion_tokens;
  if (!count || sentAt === null || firstAt === null || end.at - firstAt < SHORT_MS) return '';
  return `${rate((count - 1) / ((end.at - firstAt) / 1000))} tokens/s`;
}
