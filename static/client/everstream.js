// everstream-client: starts, follows and stops generations of an Everstream service, across lost connections.
//
//   const answer = start('Why is the sky blue?');
//   for await (const text of answer.texts()) output.append(text);
//
// One module without dependencies, for browsers, and with `transport: 'fetch'` for anything else that has fetch. Its
// parts, from the outside in: a client and its answers; hubs, which hold one connection for all generations that are
// followed, in the page or in a SharedWorker for all tabs of a browser; transports; and what all of them use.
// everstream.d.ts has the types, docs/client.md the description.

const TERMINAL = new Set(['done', 'cancelled', 'failed']);
const LOG_EVENTS = ['message', 'open', 'resumed', ...TERMINAL];
const EVENTS = [...LOG_EVENTS, 'queued', 'engine', 'ping', 'busy'];
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 30000;
const MAX_EVENT_CHARS = 64 << 20;
const WORKER_NAME = 'everstream-1';
const WORKER_ANSWERS_WITHIN_MS = 5000;

// --- The client

/** What a server refused, or how a generation ended that isn't whole. */
export class EverstreamError extends Error {
  constructor({ message, code = '', param = null, status = 0 }) {
    super(message);
    this.name = 'EverstreamError';
    this.code = code;
    this.param = param;
    this.status = status;
  }
}

/** Inputs as JSON text, for numbers that JavaScript would round. */
export class JsonInputs {
  constructor(text) {
    this.text = text;
  }
}

export function createClient(options = {}) {
  const settings = {
    baseUrl: defaultBaseUrl(),
    headers: {},
    credentials: 'same-origin',
    transport: typeof EventSource === 'undefined' ? 'fetch' : 'eventsource',
    isShared: true,
    ...options,
  };
  settings.baseUrl = String(settings.baseUrl).replace(/\/*$/, '/');
  let hub = null;
  const getHub = () => {
    hub ??= createHub(settings);
    return hub;
  };
  return {
    start: (input, own = {}) => new Answer(settings, getHub(), { input, ...own }),
    follow: (id, own = {}) => new Answer(settings, getHub(), { id, ...own }),
    stop: (id, own = {}) => stopGeneration(settings, id, own.signal),
    interrupt: (ms = 0) => hub?.interrupt(ms),
    close: () => hub?.close(),
  };
}

let defaultClient = null;

function getDefaultClient() {
  defaultClient ??= createClient();
  return defaultClient;
}

export const start = (input, options) => getDefaultClient().start(input, options);
export const follow = (id, options) => getDefaultClient().follow(id, options);
export const stop = (id, options) => getDefaultClient().stop(id, options);

// Everstream serves this module as <base>/static/client/everstream.js.
function defaultBaseUrl() {
  return new URL(/\/static\/client\/[^/]*$/.test(import.meta.url) ? '../../' : '/', import.meta.url).href;
}

/** One generation, as this client sees it. */
class Answer {
  #settings;
  #hub;
  #options;
  #events = [];
  #readers = new Set();
  #started = null;
  #followed = null;
  #ending = null;
  #aborted = new AbortController();

  constructor(settings, hub, options) {
    this.#settings = settings;
    this.#hub = hub;
    this.#options = options;
    this.id = options.id ?? '';
    this.requestId = options.requestId ?? newRequestId();
    this.text = '';
    this.isOver = false;
    this.error = null;
    this.result = new Promise((resolve, reject) => { this.#ending = { resolve, reject }; });
    // Whoever awaits it still gets the error.
    this.result.catch(() => {});
    const { signal } = options;
    if (signal?.aborted) {
      this.#started = Promise.resolve();
      this.#fail(signal.reason);
    } else {
      signal?.addEventListener('abort', () => { this.close(); this.#fail(signal.reason); }, { once: true });
      this.#started = this.id ? Promise.resolve() : this.#post();
      this.#begin();
    }
  }

  /** Stop the generation. Resolves once the server has acknowledged it, however long that takes. */
  async stop() {
    await this.#started.catch(() => {});
    if (this.id) await stopGeneration(this.#settings, this.id, this.#options.signal);
  }

  /** Stop reading. The generation goes on for as long as the service lets it. */
  close() {
    this.#aborted.abort();
    this.#followed?.close();
    this.#finish();
  }

  /** The events of the log, from the first on. Ends after a terminal event, or when the answer is closed. */
  async* [Symbol.asyncIterator]() {
    let seen = 0;
    while (true) {
      while (seen < this.#events.length) {
        seen += 1;
        yield this.#events[seen - 1];
      }
      if (this.isOver) break;
      await new Promise((resolve) => { this.#readers.add(resolve); });
    }
    if (this.error && !TERMINAL.has(this.#events.at(-1)?.type)) throw this.error;
  }

  /** The texts as they come. Throws if the generation doesn't end well, so that a cut answer never looks whole. */
  async* texts() {
    for await (const event of this) {
      if (event.type === 'message' && typeof event.data.text === 'string') yield event.data.text;
    }
    if (this.error) throw this.error;
  }

  async #begin() {
    try {
      await this.#started;
      if (this.#aborted.signal.aborted) return;
      this.#followed = this.#hub.follow(this.id, this.#options.after ?? -1, (event) => this.#receive(event));
    } catch (error) {
      if (this.#aborted.signal.aborted) return;
      const { message, code = 'client_error', param = null } = error;
      this.#receive({ type: 'failed', id: '', json: JSON.stringify({ code, message, param }) }, error);
    }
  }

  async #post() {
    const url = `${this.#settings.baseUrl}generations`;
    const body = bodyOf(this.#options, this.requestId);
    this.#receive({ type: 'connecting', json: '{}' });
    const answer = await requestUntilAnswered(this.#settings, url, { method: 'POST', body }, {
      signal: this.#aborted.signal,
      onRetry: (data) => this.#receive({ type: 'reconnecting', json: JSON.stringify(data) }),
    });
    this.id = answer.id;
    this.#receive({ type: 'started', json: JSON.stringify({ generation: this.id }) });
  }

  #receive({ type, id = '', n = null, json }, error = null) {
    if (this.isOver) return;
    const event = { type, id, n, json, data: JSON.parse(json) };
    if (type === 'message' && typeof event.data.text === 'string') this.text += event.data.text;
    if (LOG_EVENTS.includes(type)) this.#events.push(event);
    if (TERMINAL.has(type)) this.#end(event, error);
    call(this.#options.onEvent, event);
    if (type === 'message') call(this.#options.onText, event.data.text ?? '', event);
    this.#wakeReaders();
  }

  #end({ type, data }, error) {
    this.isOver = true;
    if (type === 'done') this.#ending.resolve({ text: this.text, ...data });
    else {
      const message = data.message ?? `the generation was stopped (${data.reason})`;
      this.#fail(error ?? new EverstreamError({ message, code: data.code ?? type, param: data.param }));
    }
  }

  #fail(error) {
    this.error = error;
    this.#ending.reject(error);
    this.#finish();
  }

  #finish() {
    this.isOver = true;
    this.#wakeReaders();
  }

  #wakeReaders() {
    for (const wake of this.#readers) wake();
    this.#readers.clear();
  }
}

// An error in a caller's function is reported as any uncaught one, and harms no other follower of the connection.
function call(callback, ...given) {
  try {
    callback?.(...given);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

function bodyOf({ input, model, flushMs }, requestId) {
  const options = { request_id: requestId };
  if (model !== undefined) options.model = model;
  if (flushMs !== undefined) options.flush_ms = flushMs;
  if (input instanceof JsonInputs) {
    const inputs = input.text.trim();
    return `${JSON.stringify(options).slice(0, -1)}${inputs === '{}' ? '}' : `,${inputs.slice(1)}`}`;
  }
  const inputs = typeof input === 'string' ? { prompt: input } : Array.isArray(input) ? { messages: input } : input;
  return JSON.stringify({ ...inputs, ...options });
}

async function stopGeneration(settings, id, signal) {
  try {
    await requestUntilAnswered(settings, `${settings.baseUrl}generations/${id}`, { method: 'DELETE' }, { signal });
  } catch (error) {
    // It has ended and expired, or never existed: nothing is left to stop.
    if (error.status !== 404) throw error;
  }
}

// Sends a request again until the server itself answers it: a repeat does no harm, as a POST has its request id. Returns
// the JSON of a success. Throws EverstreamError for a refusal, and the signal's reason.
async function requestUntilAnswered(settings, url, request, { signal, onRetry }) {
  for (let failures = 0; ; failures += 1) {
    const { json, reason, retryAfterMs } = await send(settings, url, request, signal);
    signal?.throwIfAborted();
    if (json) return json;
    if (isRefusal(reason)) throw new EverstreamError(reason);
    const delayMs = Math.max(backoff(failures), retryAfterMs);
    onRetry?.({ attempt: failures + 1, delay_ms: Math.round(delayMs), reason });
    await pause(delayMs, signal);
  }
}

// The service's own answer, which says that trying again won't help.
function isRefusal({ status, code }) {
  return Boolean(code) && code !== 'not_everstream' && status >= 400 && status < 500 && ![408, 425, 429].includes(status);
}

async function send(settings, url, request, signal) {
  const { headers, credentials } = settings;
  const own = request.body ? { 'Content-Type': 'application/json' } : {};
  // A page that is closed still gets its last request out; browsers bound the body of such requests.
  const keepalive = request.method === 'DELETE';
  try {
    const response = await (settings.fetch ?? fetch)(url, {
      ...request, credentials, keepalive, signal, headers: { ...own, ...await valueOf(headers) },
    });
    return await readResponse(response);
  } catch (error) {
    return { json: null, reason: { status: 0, code: '', message: error.message }, retryAfterMs: 0 };
  }
}

// { json } of a success; or { reason: { status, code, message, param }, retryAfterMs }. The code is `not_everstream` if
// something else answered, such as a proxy or a sign-in page.
async function readResponse(response) {
  const { status } = response;
  const seconds = Number(response.headers.get('Retry-After'));
  const retryAfterMs = seconds > 0 ? seconds * 1000 : 0;
  const json = await response.json().catch(() => null);
  if (response.ok && json && typeof json === 'object') return { json, reason: null, retryAfterMs };
  const error = json?.error;
  if (typeof error?.code === 'string' && typeof error.message === 'string') {
    return { json: null, reason: { status, code: error.code, message: error.message, param: error.param }, retryAfterMs };
  }
  const type = response.headers.get('Content-Type')?.split(';')[0] || 'no content type';
  const message = `the answer, ${status} with ${type}, is not Everstream's`;
  return { json: null, reason: { status, code: 'not_everstream', message }, retryAfterMs };
}

// --- Hubs: one connection for all generations that are followed

function createHub(settings) {
  const connect = settings.transport === 'fetch' ? connectByFetch : connectByEventSource;
  const createLocal = () => {
    const hub = new Hub(settings, connect);
    forwardWakes(hub);
    return hub;
  };
  return canShare(settings) ? new SharedHub(settings, createLocal) : createLocal();
}

/** Follows any number of generations over one connection. Each follower gets each entry of the log once, in order. */
class Hub {
  #settings;
  #connectTo;
  #followers = new Set();
  #connection = null;
  #timer = 0;
  #watchdog = 0;
  #failures = 0;
  #retryMs = BACKOFF_MIN_MS;
  #intervalMs = 0;
  #heardAt = 0;
  #catchingUp = new Map();
  #isChanging = false;
  #pausedUntil = 0;

  constructor(settings, connectTo) {
    this.#settings = settings;
    this.#connectTo = connectTo;
  }

  // `onEvent({ type, id, n, json })`. `after`: the number of the last entry that it has; -1: none.
  follow(generation, after, onEvent) {
    const follower = { generation, n: after, onEvent };
    this.#followers.add(follower);
    onEvent({ type: 'connecting', json: '{}' });
    this.#change();
    return { close: () => { if (this.#followers.delete(follower)) this.#change(); } };
  }

  /** Something may have changed: the page is visible again, or the network back. Don't wait any longer. */
  wake() {
    if (Date.now() < this.#pausedUntil) return;
    if (this.#timer) {
      this.#failures = 0;
      this.#connect();
    } else if (this.#connection && this.#intervalMs && Date.now() - this.#heardAt > this.#intervalMs * 1.2) {
      this.#handleSilence();
    }
  }

  /** Lose the connection on purpose, and don't reconnect for so long. */
  interrupt(ms) {
    this.#pausedUntil = Date.now() + ms;
    this.#lose({ status: 0, code: 'interrupted', message: 'the connection was cut on purpose' }, ms, { isImmediate: ms === 0 });
  }

  close() {
    this.#followers.clear();
    this.#disconnect();
  }

  // Followers that come or go together need one new connection.
  #change() {
    if (this.#isChanging) return;
    this.#isChanging = true;
    queueMicrotask(() => {
      this.#isChanging = false;
      if (this.#followers.size) this.#connect();
      else this.#disconnect();
    });
  }

  #places() {
    const places = new Map();
    for (const { generation, n } of this.#followers) {
      places.set(generation, Math.min(n, places.get(generation) ?? n));
    }
    return places;
  }

  #connect() {
    this.#disconnect();
    const places = this.#places();
    const query = new URLSearchParams();
    for (const [generation, n] of places) query.append('generation', n < 0 ? generation : `${generation}.${n}`);
    const probe = `${this.#settings.baseUrl}generations/${places.keys().next().value}?limit=1`;
    this.#heardAt = Date.now();
    // Events of an earlier connection may still be on their way.
    const handlers = {};
    const connection = this.#connectTo(this.#settings, { url: `${this.#settings.baseUrl}events?${query}`, probe }, {
      onEvent: (event) => { if (this.#connection === handlers) this.#receive(event); },
      onBytes: () => { if (this.#connection === handlers) this.#hear(); },
      onLost: (reason, retryAfterMs) => { if (this.#connection === handlers) this.#lose(reason, retryAfterMs); },
    });
    this.#connection = Object.assign(handlers, { close: connection.close });
    this.#watch();
  }

  #disconnect() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    this.#timer = 0;
    this.#connection?.close();
    this.#connection = null;
    this.#catchingUp.clear();
  }

  #hear() {
    this.#heardAt = Date.now();
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#watchdog);
    if (this.#intervalMs) this.#watchdog = setTimeout(() => this.#handleSilence(), 2 * this.#intervalMs);
  }

  #handleSilence() {
    const seconds = Math.round((Date.now() - this.#heardAt) / 1000);
    const message = `nothing was received for ${seconds} s`;
    this.#lose({ status: 0, code: 'silent', message }, 0, { isImmediate: true });
  }

  #receive(event) {
    this.#hear();
    const data = event.type === 'ping' || event.type === 'busy' ? JSON.parse(event.data) : null;
    if (event.type === 'busy') this.#lose({ status: 503, code: data.code, message: data.message }, data.retry_ms);
    else if (event.type === 'ping') this.#receivePing(data);
    else if (LOG_EVENTS.includes(event.type)) this.#receiveEntry(event);
    else this.#tell(JSON.parse(event.data).generation, { type: event.type, json: event.data });
  }

  #receivePing({ generation, interval_ms: intervalMs, retry_ms: retryMs, last, worker }) {
    this.#failures = 0;
    this.#intervalMs = intervalMs;
    this.#retryMs = retryMs ?? this.#retryMs;
    this.#watch();
    if (last === undefined) return;
    this.#tell(generation, { type: 'connected', json: JSON.stringify({ worker, last }) });
    this.#catchingUp.set(generation, { last, first: this.#places().get(generation) });
    this.#checkCaughtUp(generation);
  }

  #receiveEntry(event) {
    const { generation, n } = parseEventId(event.id);
    for (const follower of [...this.#followers]) {
      if (follower.generation === generation) this.#give(follower, event, n);
    }
    this.#checkCaughtUp(generation);
    if (this.#followers.size === 0) this.#disconnect();
  }

  // `n` is null if the event is not in the log, because the log is lost.
  #give(follower, { type, id, data }, n) {
    if (n !== null && n <= follower.n) return;
    if (n !== null && n > follower.n + 1) {
      this.#lose({ status: 0, code: 'gap', message: `entry ${follower.n + 1} is missing` }, 0);
      return;
    }
    if (n !== null) follower.n = n;
    if (TERMINAL.has(type)) this.#followers.delete(follower);
    follower.onEvent({ type, id, n, json: data });
  }

  #checkCaughtUp(generation) {
    const catchingUp = this.#catchingUp.get(generation);
    const n = this.#places().get(generation);
    if (!catchingUp || n === undefined || n < catchingUp.last) return;
    this.#catchingUp.delete(generation);
    const count = catchingUp.last - Math.max(catchingUp.first, 0);
    if (count > 0) this.#tell(generation, { type: 'caught_up', json: JSON.stringify({ count }) });
  }

  #tell(generation, event) {
    for (const follower of [...this.#followers]) {
      if (!generation || follower.generation === generation) follower.onEvent(event);
    }
  }

  #lose(reason, retryAfterMs, { isImmediate = false } = {}) {
    this.#disconnect();
    if (this.#followers.size === 0) return;
    const delayMs = isImmediate ? 0 : Math.max(this.#failures ? backoff(this.#failures) : this.#retryMs, retryAfterMs);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    const data = { attempt: this.#failures, delay_ms: Math.round(delayMs), reason };
    this.#tell('', { type: 'reconnecting', json: JSON.stringify(data) });
  }
}

// A page that comes back, and a network that does.
function forwardWakes(hub) {
  if (typeof window === 'undefined') return;
  window.addEventListener('online', () => hub.wake());
  window.addEventListener('pageshow', () => hub.wake());
  document.addEventListener('visibilitychange', () => { if (!document.hidden) hub.wake(); });
}

/** The hub of all tabs of this browser, in a SharedWorker: over HTTP/1.1 they have six connections together. */
class SharedHub {
  #settings;
  #createLocal;
  #local = null;
  #port = null;
  #followers = new Map();
  #count = 0;

  constructor(settings, createLocal) {
    this.#settings = settings;
    this.#createLocal = createLocal;
    this.#start();
    window.addEventListener('pagehide', () => this.#post({ type: 'leave' }));
    window.addEventListener('pageshow', ({ persisted }) => { if (persisted) this.#followAgain(); });
    forwardWakes(this);
  }

  follow(generation, after, onEvent) {
    if (this.#local) return this.#local.follow(generation, after, onEvent);
    this.#count += 1;
    const key = this.#count;
    const follower = { key, generation, n: after, onEvent, moved: null };
    this.#followers.set(key, follower);
    this.#postFollow(follower);
    return {
      close: () => {
        this.#followers.delete(key);
        if (follower.moved) follower.moved.close();
        else this.#post({ type: 'unfollow', key });
      },
    };
  }

  wake() {
    if (this.#local) this.#local.wake();
    else this.#post({ type: 'wake' });
  }

  interrupt(ms) {
    if (this.#local) this.#local.interrupt(ms);
    else this.#post({ type: 'interrupt', ms });
  }

  close() {
    this.#post({ type: 'leave' });
    this.#local?.close();
  }

  #start() {
    const timer = setTimeout(() => this.#moveToPage(), WORKER_ANSWERS_WITHIN_MS);
    try {
      const worker = new SharedWorker(import.meta.url, { type: 'module', name: WORKER_NAME });
      worker.addEventListener('error', () => this.#moveToPage());
      this.#port = worker.port;
      this.#port.onmessage = ({ data }) => {
        clearTimeout(timer);
        if (data.event) this.#receive(data);
      };
      const { baseUrl, credentials } = this.#settings;
      this.#post({ type: 'begin', settings: { baseUrl, credentials } });
    } catch {
      clearTimeout(timer);
      this.#moveToPage();
    }
  }

  #post(message) {
    this.#port?.postMessage(message);
  }

  #postFollow({ key, generation, n }) {
    this.#post({ type: 'follow', key, generation, after: n });
  }

  #followAgain() {
    for (const follower of this.#followers.values()) this.#postFollow(follower);
  }

  #receive({ key, event }) {
    const follower = this.#followers.get(key);
    if (!follower) return;
    if (typeof event.n === 'number') {
      if (event.n <= follower.n) return;
      follower.n = event.n;
    }
    if (TERMINAL.has(event.type)) this.#followers.delete(key);
    follower.onEvent(event);
  }

  // Without the worker, each page has a connection of its own.
  #moveToPage() {
    if (this.#local) return;
    this.#post({ type: 'leave' });
    this.#port = null;
    this.#local = this.#createLocal();
    for (const follower of this.#followers.values()) {
      follower.moved = this.#local.follow(follower.generation, follower.n, follower.onEvent);
    }
  }
}

// Everything that it takes is this module's, in this page's origin.
function canShare({ isShared, transport, baseUrl, headers }) {
  if (!isShared || transport === 'fetch' || typeof SharedWorker === 'undefined' || typeof window === 'undefined') return false;
  const isOwn = (url) => new URL(url, location.href).origin === location.origin;
  return isOwn(import.meta.url) && isOwn(baseUrl) && typeof headers === 'object' && !Object.keys(headers).length;
}

// The worker's side of SharedHub. Tabs of one service share one hub.
function serveTabs(scope) {
  const hubs = new Map();
  scope.addEventListener('connect', ({ ports: [port] }) => {
    const closers = new Map();
    let hub = null;
    const leave = () => {
      for (const closer of closers.values()) closer.close();
      closers.clear();
    };
    const actions = {
      begin: ({ settings }) => {
        const name = JSON.stringify(settings);
        if (!hubs.has(name)) hubs.set(name, new Hub({ ...settings, headers: {} }, connectByEventSource));
        hub = hubs.get(name);
        port.postMessage({ type: 'begun' });
      },
      follow: ({ key, generation, after }) => {
        closers.get(key)?.close();
        closers.set(key, hub.follow(generation, after, (event) => port.postMessage({ key, event })));
      },
      unfollow: ({ key }) => {
        closers.get(key)?.close();
        closers.delete(key);
      },
      leave,
      wake: () => hub.wake(),
      interrupt: ({ ms }) => hub.interrupt(ms),
    };
    port.addEventListener('message', ({ data }) => actions[data.type]?.(data));
    port.addEventListener('close', leave);
    port.start();
  });
}

if (typeof SharedWorkerGlobalScope !== 'undefined' && globalThis instanceof SharedWorkerGlobalScope) serveTabs(globalThis);

// --- Transports: one connection to a stream of events. Each calls onEvent({ type, id, data }), and onLost(reason,
// retryAfterMs) once when the connection ends, however it does.

function connectByEventSource(settings, { url, probe }, { onEvent, onLost }) {
  const source = new EventSource(url, { withCredentials: settings.credentials === 'include' });
  let isOver = false;
  const close = () => {
    isOver = true;
    source.close();
  };
  for (const type of EVENTS) {
    source.addEventListener(type, (event) => {
      // EventSource's own `open` has no data; the server's has.
      if (event.data !== undefined && !isOver) onEvent({ type, id: event.lastEventId, data: event.data });
    });
  }
  source.addEventListener('error', async () => {
    if (isOver) return;
    // EventSource gives no status. It is closed for good if something answered, but not with a stream.
    const wasAnswered = source.readyState === 2;
    close();
    if (!wasAnswered) onLost(LOST, 0);
    else {
      const { reason, retryAfterMs } = await send(settings, probe, { method: 'GET' });
      onLost(reason ?? { status: 200, code: 'not_everstream', message: 'the answer is not a stream of events' }, retryAfterMs);
    }
  });
  return { close };
}

const LOST = { status: 0, code: '', message: 'the connection was lost' };

function connectByFetch(settings, { url }, { onEvent, onBytes, onLost }) {
  const controller = new AbortController();
  const { signal } = controller;
  readStream(settings, url, { signal, onEvent, onBytes }).then(
    ({ reason, retryAfterMs }) => { if (!signal.aborted) onLost(reason, retryAfterMs); },
    (error) => { if (!signal.aborted) onLost({ ...LOST, message: error.message }, 0); },
  );
  return { close: () => controller.abort() };
}

// Resolves when the stream ends.
async function readStream(settings, url, { signal, onEvent, onBytes }) {
  const response = await (settings.fetch ?? fetch)(url, {
    signal,
    credentials: settings.credentials,
    cache: 'no-store',
    headers: { Accept: 'text/event-stream', ...await valueOf(settings.headers) },
  });
  const type = response.headers.get('Content-Type') ?? '';
  if (response.status !== 200 || !type.startsWith('text/event-stream')) return readResponse(response);
  const decoder = new SseDecoder();
  const reader = response.body.getReader();
  while (true) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return { reason: LOST, retryAfterMs: 0 };
    onBytes();
    for (const event of decoder.feed(value)) onEvent(event);
  }
}

/** Server-Sent Events as the standard has them (WHATWG HTML, 9.2.6): bytes in, whole events out. */
export class SseDecoder {
  #decoder = new TextDecoder();
  #rest = '';
  #endsWithCr = false;
  #type = '';
  #data = null;
  #size = 0;
  #newId = null;
  lastEventId = '';
  retryMs = null;

  // Throws if an event is too large.
  feed(bytes) {
    const given = this.#decoder.decode(bytes, { stream: true });
    if (!given) return [];
    // A CR ends a line at once; an LF after it, in the next chunk, belongs to it.
    const text = this.#endsWithCr && given.startsWith('\n') ? given.slice(1) : given;
    this.#endsWithCr = given.endsWith('\r');
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop();
    if (this.#size + this.#rest.length > MAX_EVENT_CHARS) throw new Error('an event is too large');
    return lines.map((line) => this.#line(line)).filter((event) => event !== null);
  }

  #line(line) {
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const given = colon < 0 ? '' : line.slice(colon + 1);
    const value = given.startsWith(' ') ? given.slice(1) : given;
    if (field === 'event') this.#type = value;
    else if (field === 'data') this.#append(value);
    else if (field === 'id' && !value.includes('\0')) this.#newId = value;
    else if (field === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  #append(value) {
    this.#size += value.length;
    if (this.#size > MAX_EVENT_CHARS) throw new Error('an event is too large');
    this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
  }

  #dispatch() {
    if (this.#newId !== null) this.lastEventId = this.#newId;
    const event = { type: this.#type || 'message', id: this.lastEventId, data: this.#data };
    this.#type = '';
    this.#data = null;
    this.#newId = null;
    this.#size = 0;
    return event.data === null ? null : event;
  }
}

// --- What all of them use

/** { generation, n } of `<generation>.<n>`; n is null for an event that is not in the log. */
export function parseEventId(id) {
  const [generation, n] = id.split('.');
  return { generation, n: /^[0-9]+$/.test(n) ? Number(n) : null };
}

/** Milliseconds to wait after so many failures. Half of it is random: clients that lost one server must not reconnect
 * together. */
export function backoff(failures) {
  const limit = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS);
  return limit / 2 + Math.random() * (limit / 2);
}

// Shorter if the network or the page comes back.
function pause(ms, signal) {
  return new Promise((resolve) => {
    const target = typeof window === 'undefined' ? null : window;
    const names = ['online', 'pageshow'];
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', end);
      for (const name of names) target?.removeEventListener(name, end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal?.addEventListener('abort', end);
    for (const name of names) target?.addEventListener(name, end);
  });
}

async function valueOf(headers) {
  return typeof headers === 'function' ? headers() : headers;
}

// 128 random bits; crypto.randomUUID needs a secure origin.
function newRequestId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
