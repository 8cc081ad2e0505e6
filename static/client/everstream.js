// everstream-client: starts, follows and stops generations of an Everstream service, across lost connections.
//
//   const answer = start('Why is the sky blue?');
//   for await (const text of answer.texts()) output.append(text);
//
// One module without dependencies, for browsers and for anything else that has fetch. Its parts, from the outside in: a
// client and its answers; requests; hubs, which hold one connection for all generations that are followed, in the page or
// in a SharedWorker for all tabs of a browser; transports; and what all of them use. everstream.d.ts has the types,
// docs/client.md the description.
//
// It is one file so that a page can take it as it is, from any server, and so that the SharedWorker runs the same code.

const TERMINAL = new Set(['done', 'cancelled', 'failed']);
const ENTRIES = new Set(['message', 'open', 'resumed', ...TERMINAL]);
const EVENTS = [...ENTRIES, 'queued', 'engine', 'ping', 'busy'];
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 30_000;
// Bounds what a server may ask for; browsers take a timer above 2^31 ms as none.
const RETRY_MAX_MS = 3_600_000;
const INTERVAL_MS = 15_000;
const CONNECT_WITHIN_MS = 15_000;
const RESPONSE_WITHIN_MS = 30_000;
const UPLOAD_BYTES_PER_MS = 10;
const MAX_EVENT_CHARS = 64 << 20;
// The service's own bound for one stream.
const MAX_TOGETHER = 8;
// The service abandons a generation that nobody has read for 60 s.
const LOOK_EVERY_MS = 20_000;
const HIDDEN_AFTER_MS = 30_000;
const STOP_MAKES_ROOM_AFTER_MS = 2000;
// Tabs and worker may come from different versions of this file: a new number with each change of their messages.
const WORKER_NAME = 'everstream-1';
const WORKER_ANSWERS_WITHIN_MS = 10_000;
const BEAT_MS = 5000;
const GONE_AFTER_MS = 15_000;
const LOST = { status: 0, code: 'connection_lost', message: 'the connection was lost' };

// --- The client

/** A request that was refused, or an answer that isn't whole. */
export class EverstreamError extends Error {
  constructor({ message, code, param = null, status = 0 }) {
    super(message);
    this.name = 'EverstreamError';
    this.code = code;
    this.param = param;
    this.status = status;
  }
}

/** Inputs as the text of a JSON object, for numbers that JavaScript would round. */
export class JsonInputs {
  constructor(text) {
    if (!isObject(JSON.parse(text))) throw new TypeError('inputs must be a JSON object');
    this.text = text.trim();
  }
}

export function createClient(options = {}) {
  const context = { settings: readSettings(options), hub: null, answers: new Set() };
  return {
    start: (input, own = {}) => new Answer(context, { ...own, body: makeBody(input, own) }),
    follow: (id, own = {}) => new Answer(context, { ...own, id: checkId(id) }),
    stop: (id, own = {}) => stopGeneration(context.settings, checkId(id), own.signal),
    interrupt: (ms = 0) => context.hub?.interrupt(ms),
    close: () => {
      for (const answer of [...context.answers]) answer.close();
      context.hub?.close();
      context.hub = null;
    },
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

function readSettings(options) {
  const settings = {
    baseUrl: defaultBaseUrl(),
    headers: {},
    credentials: 'same-origin',
    isShared: true,
    workerUrl: import.meta.url,
    hiddenAfterMs: HIDDEN_AFTER_MS,
    ...options,
  };
  if (!settings.baseUrl) throw new TypeError('baseUrl is missing');
  settings.baseUrl = new URL(settings.baseUrl, globalThis.location?.href).href.replace(/\/*$/, '/');
  const canUseEventSource = typeof EventSource !== 'undefined' && !hasHeaders(settings) && !settings.fetch
    && settings.credentials !== 'omit';
  settings.transport ??= canUseEventSource ? 'eventsource' : 'fetch';
  if (settings.transport === 'eventsource' && !canUseEventSource) {
    throw new TypeError('EventSource is missing, or can\'t send these headers or leave out credentials: use transport fetch');
  }
  return settings;
}

// Everstream serves this module as <base>/static/client/everstream.js, also below <base>/static/v-<version>/.
function defaultBaseUrl() {
  const served = /^(https?:.*\/)static\/(v-[0-9a-f]+\/)?client\/[^/]*$/.exec(import.meta.url);
  return served?.[1] ?? globalThis.location?.origin ?? '';
}

function hasHeaders({ headers }) {
  return typeof headers === 'function' || [...new Headers(headers)].length > 0;
}

function checkId(id) {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new TypeError(`a generation's id is 32 hex digits, not ${id}`);
  return id;
}

/** One generation, as this client sees it. */
class Answer {
  #context;
  #options;
  #posted;
  #result;
  #settle;
  #followed = null;
  #queues = new Set();
  #hasEntries = false;
  #isStopping = false;
  #hasFailed = false;
  // Aborted when reading ends before the generation does.
  #cut = new AbortController();
  #over = new AbortController();

  constructor(context, options) {
    const { id = '', body = null, signal } = options;
    this.#context = context;
    this.#options = options;
    this.id = id;
    this.requestId = body?.requestId ?? '';
    this.text = '';
    this.isOver = false;
    this.error = null;
    this.#result = new Promise((resolve, reject) => { this.#settle = { resolve, reject }; });
    // Whoever asks for it still gets the error.
    this.#result.catch(() => {});
    context.answers.add(this);
    if (signal?.aborted) {
      this.#posted = Promise.resolve();
      this.#fail(signal.reason);
    } else {
      signal?.addEventListener('abort', () => this.#close(signal.reason), { signal: this.#over.signal });
      // No callback before the caller has the answer.
      this.#posted = Promise.resolve().then(() => (id ? null : this.#post(body.text)));
      this.#posted.then(() => this.#follow(), (error) => this.#refuse(error));
    }
  }

  /** The whole answer. Rejects if it ends otherwise than with `done`. */
  result() {
    return this.#result;
  }

  /** Stop the generation. Resolves once the service has acknowledged it, however long that takes. */
  async stop() {
    this.#isStopping = true;
    await this.#posted.catch(() => {});
    if (!this.id) return;
    // Over HTTP/1.1 this page's stream may hold the last of the browser's connections.
    const { hub, settings } = this.#context;
    let hasMadeRoom = false;
    const timer = setTimeout(() => {
      hasMadeRoom = true;
      hub?.rest();
    }, STOP_MAKES_ROOM_AFTER_MS);
    try {
      await stopGeneration(settings, this.id);
    } finally {
      clearTimeout(timer);
      if (hasMadeRoom) hub?.wake();
    }
  }

  /** Stop reading. The generation goes on for as long as the service lets it. */
  close() {
    this.#close(new EverstreamError({ code: 'closed', message: 'the answer was closed before its end' }));
  }

  /** The entries of the log, up to the terminal one, from the first on: a loop that begins late reads the log again.
   * Leaving a loop early closes the answer. Throws if reading ends before the generation does. */
  async* [Symbol.asyncIterator]() {
    const { id, after } = { ...this.#options, id: this.id };
    const events = this.#hasEntries
      ? new Answer(this.#context, { id, after, signal: this.#cut.signal })[Symbol.asyncIterator]()
      : this.#live();
    let isWhole = false;
    try {
      for await (const event of events) {
        isWhole = TERMINAL.has(event.type);
        yield event;
      }
    } finally {
      if (!isWhole) this.close();
    }
  }

  /** The texts as they come. Throws unless the generation ends with `done`: a cut answer never looks whole. */
  async* texts() {
    for await (const event of this) {
      const text = textOf(event);
      if (text !== null) yield text;
      const error = errorOf(event);
      if (error) throw error;
    }
  }

  async* #live() {
    const queue = new Queue();
    this.#queues.add(queue);
    if (this.isOver) queue.close();
    try {
      yield* queue.read();
      if (this.#hasFailed && !queue.hasTerminal) throw this.error;
    } finally {
      this.#queues.delete(queue);
    }
  }

  async #post(body) {
    this.#receive({ type: 'connecting', json: '{}' });
    const request = { method: 'POST', body, isExpected: ({ id }) => /^[0-9a-f]{32}$/.test(id) };
    const { id } = await requestUntilAnswered(this.#context.settings, 'generations', request, {
      signal: this.#cut.signal,
      canAbort: () => !this.#isStopping,
      onRetry: (data) => this.#receive({ type: 'reconnecting', json: JSON.stringify(data) }),
    });
    this.id = id;
    this.#receive({ type: 'started', json: JSON.stringify({ generation: id }) });
  }

  #follow() {
    if (this.isOver) return;
    this.#context.hub ??= createHub(this.#context.settings);
    this.#followed = this.#context.hub.follow(this.id, this.#options.after ?? -1, (event) => this.#receive(event));
  }

  #receive({ type, id = '', n = null, json }) {
    if (this.isOver) return;
    const event = { type, id, n, json, data: JSON.parse(json) };
    if (type === 'refused') {
      this.#refuse(new EverstreamError(event.data));
      return;
    }
    const text = textOf(event);
    if (text !== null) this.text += text;
    if (ENTRIES.has(type)) {
      this.#hasEntries = true;
      for (const queue of this.#queues) queue.put(event);
    }
    if (type === 'done') this.#succeed(event.data);
    else if (TERMINAL.has(type)) this.#fail(errorOf(event));
    call(this.#options.onEvent, event);
    if (text !== null) call(this.#options.onText, text, event);
  }

  #refuse(error) {
    if (this.isOver) return;
    this.#close(error);
    const { message, code = 'client_error', param = null, status = 0 } = error;
    const data = { code, message, param, status };
    call(this.#options.onEvent, { type: 'failed', id: '', n: null, json: JSON.stringify(data), data });
  }

  #close(error) {
    if (this.isOver) return;
    this.#cut.abort(error);
    this.#followed?.close();
    this.#fail(error);
  }

  #succeed(data) {
    this.#settle.resolve({ ...data, id: this.id, text: this.text, state: 'done' });
    this.#finish();
  }

  // A caller's reason to abort may be anything, even null.
  #fail(error) {
    this.#hasFailed = true;
    this.error = error;
    this.#settle.reject(error);
    this.#finish();
  }

  #finish() {
    this.isOver = true;
    for (const queue of this.#queues) queue.close();
    this.#context.answers.delete(this);
    this.#over.abort();
  }
}

/** Events for one loop. */
class Queue {
  #events = [];
  #isClosed = false;
  #wake = () => {};
  hasTerminal = false;

  put(event) {
    this.#events.push(event);
    this.hasTerminal = TERMINAL.has(event.type);
    this.#wake();
  }

  close() {
    this.#isClosed = true;
    this.#wake();
  }

  async* read() {
    while (true) {
      const events = this.#events;
      this.#events = [];
      yield* events;
      if (this.#events.length) continue;
      if (this.#isClosed) return;
      await new Promise((resolve) => { this.#wake = resolve; });
    }
  }
}

function textOf({ type, data }) {
  return type === 'message' && typeof data.text === 'string' ? data.text : null;
}

// Why an answer with this last event isn't whole.
function errorOf({ type, data }) {
  if (type === 'failed') return new EverstreamError(data);
  if (type !== 'cancelled') return null;
  return new EverstreamError({ code: 'cancelled', message: `the generation was stopped: ${data.reason}` });
}

// An error in a caller's function is reported as any uncaught one, and harms no other follower of the connection.
function call(callback, ...given) {
  try {
    callback?.(...given);
  } catch (error) {
    queueMicrotask(() => { throw error; });
  }
}

// --- Requests

function makeBody(input, { model, flushMs, requestId = newRequestId() }) {
  const options = JSON.stringify({ model, flush_ms: flushMs, request_id: requestId });
  const inputs = makeInputs(input);
  // Of a name that is repeated, JSON's readers take the last.
  const text = /^\{\s*\}$/.test(inputs) ? options : `${inputs.slice(0, -1)},${options.slice(1)}`;
  return { requestId, text };
}

function makeInputs(input) {
  if (input instanceof JsonInputs) return input.text;
  if (typeof input === 'string') return JSON.stringify({ prompt: input });
  if (Array.isArray(input)) return JSON.stringify({ messages: input });
  if (!isObject(input)) throw new TypeError('start takes a prompt, messages, an object of inputs, or JsonInputs');
  return JSON.stringify(input);
}

async function stopGeneration(settings, id, signal) {
  const request = { method: 'DELETE', isExpected: ({ state }) => typeof state === 'string' };
  try {
    await requestUntilAnswered(settings, `generations/${id}`, request, { signal });
  } catch (error) {
    // Nothing is left to stop.
    if (error.code !== 'generation_expired') throw error;
  }
}

// Sends a request again until the service itself answers it: a repeat does no harm, as a POST has its request id. Returns
// the JSON of a success. Throws EverstreamError for a refusal, and the signal's reason.
async function requestUntilAnswered(settings, path, request, { signal, canAbort = () => true, onRetry }) {
  for (let failures = 0; ; failures += 1) {
    const { json, reason, retryAfterMs } = await send(settings, path, request, canAbort() ? signal : null);
    if (json) return json;
    if (canAbort()) signal?.throwIfAborted();
    if (isRefusal(reason)) throw new EverstreamError(reason);
    const delayMs = Math.max(backoff(failures), retryAfterMs);
    onRetry?.({ attempt: failures + 1, delay_ms: Math.round(delayMs), reason });
    await pause(delayMs, retryAfterMs, canAbort() ? signal : null);
    if (canAbort()) signal?.throwIfAborted();
  }
}

// The service's own answer, which says that trying again won't help.
function isRefusal({ status, code }) {
  return code !== 'not_everstream' && status >= 400 && status < 500 && ![408, 425, 429].includes(status);
}

// Returns { json } if the response is as expected; or { reason: { status, code, message, param }, retryAfterMs }.
async function send(settings, path, { method, body, isExpected }, signal) {
  const limit = limitTime(RESPONSE_WITHIN_MS + (body?.length ?? 0) / UPLOAD_BYTES_PER_MS, signal);
  try {
    const response = await fetchFrom(settings, path, {
      method,
      body,
      headers: body ? { 'Content-Type': 'application/json' } : {},
      // A page that is closed still gets its stop out.
      keepalive: method === 'DELETE',
      signal: limit.signal,
    });
    const json = await response.json().catch(() => null);
    if (response.ok && isObject(json) && isExpected(json)) return { json };
    return describe(response, json);
  } catch (error) {
    return { reason: { ...LOST, message: limit.hasPassed() ? 'the server didn\'t answer in time' : error.message }, retryAfterMs: 0 };
  } finally {
    limit.end();
  }
}

async function fetchFrom({ baseUrl, headers, credentials, fetch: ownFetch = fetch }, path, { headers: more, ...request }) {
  const all = new Headers(typeof headers === 'function' ? await headers() : headers);
  for (const [name, value] of Object.entries(more)) all.set(name, value);
  return ownFetch(baseUrl + path, { ...request, credentials, headers: all, cache: 'no-store' });
}

// What a response means that isn't the expected one. The code is `not_everstream` if something else answered, such as a
// proxy or a sign-in page.
function describe(response, json) {
  const { status } = response;
  const retryAfterMs = readRetryAfter(response.headers.get('Retry-After'));
  const error = json?.error;
  if (!response.ok && typeof error?.code === 'string') {
    return { reason: { status, code: error.code, message: String(error.message), param: error.param ?? null }, retryAfterMs };
  }
  const message = `the response, ${status} with ${mediaType(response) || 'no content type'}, is not Everstream's`;
  return { reason: { status, code: 'not_everstream', message }, retryAfterMs };
}

// RFC 9110, section 10.2.3: seconds or a date.
function readRetryAfter(text) {
  if (!text) return 0;
  const ms = /^[0-9]+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return clamp(ms, 0, RETRY_MAX_MS, 0);
}

function mediaType(response) {
  return (response.headers.get('Content-Type') ?? '').split(';')[0].trim().toLowerCase();
}

// --- Hubs: one connection for all generations that are followed

function createHub(settings) {
  const createLocal = () => createPageHub(settings);
  return canShare(settings) ? new SharedHub(settings, createLocal) : createLocal();
}

function createPageHub(settings) {
  const hub = new Hub(settings, settings.transport === 'fetch' ? connectByFetch : connectByEventSource);
  if (typeof window !== 'undefined') hub.onClose = followPage(hub, settings.hiddenAfterMs);
  return hub;
}

// A browser has six connections per host over HTTP/1.1, and a page in view needs them more than one that is hidden.
function followPage(hub, hiddenAfterMs) {
  const listening = new AbortController();
  let timer = 0;
  const follow = () => {
    clearTimeout(timer);
    if (!document.hidden) hub.wake();
    else if (hiddenAfterMs < Infinity) timer = setTimeout(() => hub.rest(), hiddenAfterMs);
  };
  const listen = (target, name, listener) => target.addEventListener(name, listener, { signal: listening.signal });
  listen(document, 'visibilitychange', follow);
  listen(window, 'pageshow', follow);
  listen(window, 'online', follow);
  // A page with an open connection can't be kept for the Back button.
  listen(window, 'pagehide', () => hub.rest());
  follow();
  return () => {
    clearTimeout(timer);
    listening.abort();
  };
}

/** Follows any number of generations, over one connection for each eight of them. */
class Hub {
  #open;
  #links = [];
  onClose = () => {};

  constructor(settings, connectTo) {
    this.#open = () => new Link(settings, connectTo);
  }

  // `onEvent({ type, id, n, json })`. `after`: the number of the last entry that the follower has; -1: none.
  follow(generation, after, onEvent) {
    let link = this.#links.find((each) => each.generations().has(generation))
      ?? this.#links.find((each) => each.generations().size < MAX_TOGETHER);
    if (!link) {
      link = this.#open();
      this.#links.push(link);
    }
    return link.follow(generation, after, onEvent);
  }

  /** Something may have changed: the page is visible again, or the network back. Don't wait any longer. */
  wake() {
    for (const link of this.#links) link.wake();
  }

  /** Give the connection back until `wake`, yet keep the generations from being abandoned. */
  rest() {
    for (const link of this.#links) link.rest();
  }

  /** Lose the connection on purpose, and don't reconnect for so long. */
  interrupt(ms) {
    for (const link of this.#links) link.interrupt(ms);
  }

  close() {
    for (const link of this.#links) link.close();
    this.onClose();
  }
}

/** One connection. Each follower gets each entry of its generation once, in order. */
class Link {
  #settings;
  #connectTo;
  #followers = new Set();
  #connection = null;
  #timer = 0;
  #watchdog = 0;
  #failures = 0;
  #retryMs = backoff(0);
  #notBefore = 0;
  #intervalMs = INTERVAL_MS;
  #heardAt = 0;
  #isAnswered = false;
  #isChanging = false;
  #isResting = false;
  #looking = null;
  // What the connection was asked for: the last place by generation.
  #asked = new Map();
  // Generations that ended while it rested.
  #ended = new Set();

  constructor(settings, connectTo) {
    this.#settings = settings;
    this.#connectTo = connectTo;
  }

  generations() {
    return new Set([...this.#followers].map(({ generation }) => generation));
  }

  follow(generation, after, onEvent) {
    // Ask for the entry `after` too, as it may be the terminal one: a stream has nothing else to say after that.
    const follower = { generation, n: after, place: Math.max(after - 1, -1), onEvent, isConnected: false, toCatchUp: null };
    this.#followers.add(follower);
    onEvent({ type: 'connecting', json: '{}' });
    this.#change();
    return { close: () => { if (this.#followers.delete(follower)) this.#change(); } };
  }

  wake() {
    const isWaiting = this.#isResting || this.#timer;
    this.#isResting = false;
    this.#ended.clear();
    // Timers stand still while a computer sleeps.
    const isStale = Date.now() - this.#heardAt > (this.#isAnswered ? 1.2 * this.#intervalMs : this.#silenceMs());
    if (isWaiting) this.#connectSoon();
    else if (this.#connection && isStale) this.#handleSilence();
  }

  rest() {
    if (this.#isResting) return;
    this.#isResting = true;
    this.#markLost();
    this.#lookLater(LOOK_EVERY_MS);
  }

  interrupt(ms) {
    this.#isResting = false;
    const reason = { ...LOST, code: 'interrupted', message: 'the connection was cut on purpose' };
    this.#lose(reason, { retryAfterMs: ms, isUrgent: true });
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
      if (!this.#followers.size) this.#disconnect();
      else if (this.#isResting) this.#lookLater(0);
      else this.#connectSoon();
    });
  }

  // At once, unless the server has asked for more time.
  #connectSoon() {
    clearTimeout(this.#timer);
    if (!this.#followers.size) return;
    const ms = this.#notBefore - Date.now();
    if (ms <= 0) this.#connect();
    else this.#timer = setTimeout(() => this.#connect(), ms);
  }

  #places() {
    const places = new Map();
    for (const { generation, place } of this.#followers) {
      if (!this.#isResting || this.#ended.has(generation)) {
        places.set(generation, Math.min(place, places.get(generation) ?? place));
      }
    }
    return places;
  }

  #connect() {
    this.#disconnect();
    const query = new URLSearchParams();
    this.#asked = this.#places();
    for (const [generation, place] of this.#asked) {
      query.append('generation', place < 0 ? generation : `${generation}.${place}`);
    }
    // Events of an earlier connection may still be on their way.
    const connection = {};
    const ifCurrent = (action) => (...given) => { if (this.#connection === connection) action(...given); };
    this.#connection = connection;
    this.#isAnswered = false;
    this.#heardAt = Date.now();
    this.#watch();
    connection.close = this.#connectTo(this.#settings, `events?${query}`, {
      onEvent: ifCurrent((event) => this.#receive(event)),
      onBytes: ifCurrent(() => this.#hear()),
      onLost: ifCurrent((reason, retryAfterMs) => this.#lose(reason, { retryAfterMs })),
    });
  }

  #disconnect() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    this.#timer = 0;
    this.#looking?.abort();
    this.#looking = null;
    this.#connection?.close();
    this.#connection = null;
  }

  #hear() {
    this.#isAnswered = true;
    this.#heardAt = Date.now();
    this.#watch();
  }

  // A server that is slow to answer must not be asked again and again.
  #silenceMs() {
    return this.#isAnswered ? 2 * this.#intervalMs : Math.max(2 * this.#intervalMs, CONNECT_WITHIN_MS);
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#handleSilence(), this.#silenceMs());
  }

  #handleSilence() {
    const seconds = Math.round((Date.now() - this.#heardAt) / 1000);
    this.#lose({ ...LOST, code: 'silent', message: `nothing was received for ${seconds} s` }, { isUrgent: true });
  }

  #receive({ type, id, data: json }) {
    this.#hear();
    const data = readObject(json);
    const place = ENTRIES.has(type) ? parseEventId(id) : null;
    // Only an event that ends a lost log has no number.
    const isValid = data && (!ENTRIES.has(type) || (place && (place.n !== null || TERMINAL.has(type))));
    if (!isValid) this.#lose({ ...LOST, code: 'invalid_event', message: `an event of type ${type} can't be read` });
    else if (type === 'ping') this.#receivePing(data);
    else if (type === 'busy') this.#receiveBusy(data);
    else if (place) this.#receiveEntry({ type, id, json, ...place });
    else this.#tell(data.generation, { type, json });
  }

  #receiveBusy({ code, message, retry_ms: retryMs }) {
    const retryAfterMs = clamp(retryMs, 0, RETRY_MAX_MS, BACKOFF_MAX_MS);
    this.#lose({ status: 503, code: String(code), message: String(message) }, { retryAfterMs });
  }

  #receivePing({ generation, interval_ms: intervalMs, retry_ms: retryMs, last, worker }) {
    this.#intervalMs = clamp(intervalMs, 250, RETRY_MAX_MS, this.#intervalMs);
    this.#retryMs = clamp(retryMs, 0, RETRY_MAX_MS, this.#retryMs);
    this.#watch();
    if (typeof last === 'number') this.#begin(generation, last, worker);
    // Not the first one: the connection has lasted.
    else if (retryMs === undefined) this.#failures = 0;
  }

  #begin(generation, last, worker) {
    for (const follower of this.#followersOf(generation)) {
      if (last < follower.n) this.#endLost(follower);
      else if (!follower.isConnected) {
        follower.isConnected = true;
        follower.toCatchUp = { last, first: Math.max(follower.n, 0) };
        follower.onEvent({ type: 'connected', json: JSON.stringify({ worker, last }) });
        this.#checkCaughtUp(follower);
      }
    }
  }

  #endLost(follower) {
    const message = `entry ${follower.n} was received, but the log of this generation ends before it`;
    this.#followers.delete(follower);
    this.#change();
    follower.onEvent({ type: 'failed', json: JSON.stringify({ code: 'entries_lost', message }) });
  }

  #receiveEntry({ generation, n, ...event }) {
    for (const follower of this.#followersOf(generation)) {
      if (this.#connection) this.#give(follower, n, event);
    }
    if (!this.#followers.size) this.#disconnect();
  }

  #give(follower, n, event) {
    const isLast = TERMINAL.has(event.type);
    if (n !== null && n > follower.n + 1) {
      this.#lose({ ...LOST, code: 'gap', message: `entry ${follower.n + 1} is missing` });
      return;
    }
    const isNew = n === null || n > follower.n;
    if (isNew && n !== null) {
      this.#failures = 0;
      follower.n = n;
      follower.place = n;
    }
    if (isLast) this.#followers.delete(follower);
    if (isNew || isLast) follower.onEvent({ ...event, n });
    if (!isLast) this.#checkCaughtUp(follower);
  }

  #checkCaughtUp(follower) {
    if (!follower.toCatchUp || follower.n < follower.toCatchUp.last) return;
    const count = follower.toCatchUp.last - follower.toCatchUp.first;
    follower.toCatchUp = null;
    if (count > 0) follower.onEvent({ type: 'caught_up', json: JSON.stringify({ count }) });
  }

  // All of them if the server didn't say which.
  #followersOf(generation) {
    return [...this.#followers].filter((follower) => !generation || follower.generation === generation);
  }

  #tell(generation, event) {
    for (const follower of this.#followersOf(generation)) follower.onEvent(event);
  }

  // Followers of a connection that is only replaced don't notice.
  #markLost() {
    for (const follower of this.#followers) follower.isConnected = false;
  }

  #lose(reason, { retryAfterMs = 0, isUrgent = false } = {}) {
    this.#disconnect();
    this.#markLost();
    if (!this.#followers.size) return;
    // All have ended, each with the entry before the one that its follower has.
    const isEmpty = reason.status === 204 && [...this.#asked.values()].every((place) => place >= 0);
    if (isEmpty) for (const generation of this.#asked.keys()) this.#followersOf(generation).forEach((each) => this.#endLost(each));
    else if (isRefusal(reason) && reason.code !== 'generation_expired') this.#refuse(reason);
    else if (this.#isResting) this.#lookLater(LOOK_EVERY_MS);
    else this.#reconnectLater(reason, isUrgent && !this.#failures ? 0 : this.#retryMs, retryAfterMs);
  }

  #refuse(reason) {
    const followers = [...this.#followers];
    this.#followers.clear();
    for (const follower of followers) follower.onEvent({ type: 'refused', json: JSON.stringify(reason) });
  }

  #reconnectLater(reason, retryMs, retryAfterMs) {
    const delayMs = Math.max(this.#failures ? backoff(this.#failures) : 0, retryMs, retryAfterMs);
    this.#failures += 1;
    this.#notBefore = Date.now() + retryAfterMs;
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    const data = { attempt: this.#failures, delay_ms: Math.round(delayMs), reason };
    this.#tell('', { type: 'reconnecting', json: JSON.stringify(data) });
  }

  #lookLater(ms) {
    this.#disconnect();
    if (this.#followers.size) this.#timer = setTimeout(() => this.#look(), ms);
  }

  // A look counts as reading. What has ended is read to its end.
  async #look() {
    const looking = new AbortController();
    this.#looking = looking;
    // After an entry that no log reaches: the state alone.
    const request = { method: 'GET', isExpected: ({ state }) => typeof state === 'string' };
    for (const generation of this.generations()) {
      const { json, reason } = await send(
        this.#settings, `generations/${generation}?after=999999999&limit=1`, request, looking.signal,
      );
      if (looking.signal.aborted) return;
      if (TERMINAL.has(json?.state) || reason?.code === 'generation_expired') this.#ended.add(generation);
    }
    this.#lookLater(LOOK_EVERY_MS);
    if (this.#places().size) this.#connect();
  }
}

/** The hub of all tabs of this browser, in a SharedWorker: they need one connection together. */
class SharedHub {
  #settings;
  #createLocal;
  #local = null;
  #port = null;
  #followers = new Map();
  #count = 0;
  #heardAt = 0;
  #hasBegun = false;
  #deadline = 0;
  #watchdog = 0;
  #listening = new AbortController();

  constructor(settings, createLocal) {
    this.#settings = settings;
    this.#createLocal = createLocal;
    const listen = (target, name, listener) => target.addEventListener(name, listener, { signal: this.#listening.signal });
    listen(window, 'pagehide', () => this.#post({ type: 'leave' }));
    listen(window, 'pageshow', ({ persisted }) => { if (persisted) this.#followAgain(); });
    listen(window, 'pageshow', () => this.#post({ type: 'wake' }));
    listen(window, 'online', () => this.#post({ type: 'wake' }));
    listen(document, 'visibilitychange', () => { if (!document.hidden) this.#post({ type: 'wake' }); });
    this.#watchdog = setInterval(() => this.#watch(), BEAT_MS);
    this.#start();
  }

  follow(generation, after, onEvent) {
    if (this.#local) return this.#local.follow(generation, after, onEvent);
    this.#count += 1;
    const key = this.#count;
    const follower = { key, generation, n: after, onEvent };
    follower.close = () => {
      this.#followers.delete(key);
      this.#post({ type: 'unfollow', key });
    };
    this.#followers.set(key, follower);
    // The worker sends beats only to tabs that follow something.
    if (this.#followers.size === 1) this.#heardAt = Date.now();
    this.#postFollow(follower);
    return { close: () => follower.close() };
  }

  wake() {
    this.#local?.wake();
    this.#post({ type: 'wake' });
  }

  // One connection for all tabs leaves the others free.
  rest() {
    this.#local?.rest();
  }

  interrupt(ms) {
    this.#local?.interrupt(ms);
    this.#post({ type: 'interrupt', ms });
  }

  close() {
    this.#leave();
    this.#followers.clear();
    this.#local?.close();
  }

  #start() {
    clearTimeout(this.#deadline);
    this.#hasBegun = false;
    this.#deadline = setTimeout(() => this.#moveToPage(), WORKER_ANSWERS_WITHIN_MS);
    try {
      const { workerUrl, baseUrl, credentials } = this.#settings;
      const worker = new SharedWorker(workerUrl, { type: 'module', name: WORKER_NAME });
      const { port } = worker;
      this.#port = port;
      // Not the listeners of a worker that was replaced.
      const ifCurrent = (action) => (event) => { if (this.#port === port) action(event); };
      worker.addEventListener('error', ifCurrent(() => this.#moveToPage()));
      port.addEventListener('close', ifCurrent(() => (this.#hasBegun ? this.#start() : this.#moveToPage())));
      port.addEventListener('message', ifCurrent(({ data }) => this.#receive(data)));
      port.start();
      this.#post({ type: 'begin', settings: { baseUrl, credentials } });
      this.#followAgain();
    } catch {
      this.#moveToPage();
    }
  }

  // The worker's beats stop when it dies, which not all browsers tell.
  #watch() {
    if (this.#followers.size && Date.now() - this.#heardAt > GONE_AFTER_MS) {
      this.#post({ type: 'leave' });
      this.#port?.close();
      this.#start();
    }
  }

  #leave() {
    clearTimeout(this.#deadline);
    clearInterval(this.#watchdog);
    this.#listening.abort();
    this.#post({ type: 'leave' });
    this.#port?.close();
    this.#port = null;
  }

  #post(message) {
    this.#port?.postMessage(message);
  }

  #postFollow({ key, generation, n }) {
    this.#post({ type: 'follow', key, generation, after: n });
  }

  #followAgain() {
    this.#heardAt = Date.now();
    for (const follower of this.#followers.values()) this.#postFollow(follower);
  }

  #receive({ type, key, event }) {
    this.#heardAt = Date.now();
    this.#hasBegun = true;
    clearTimeout(this.#deadline);
    if (type === 'beat') this.#post({ type: 'here' });
    else if (type === 'dropped') this.#followAgain();
    else if (type === 'event' && this.#followers.has(key)) this.#give(this.#followers.get(key), event);
  }

  #give(follower, event) {
    const isLast = endsFollowing(event);
    const isOld = typeof event.n === 'number' && event.n <= follower.n;
    if (isLast) this.#followers.delete(follower.key);
    else if (isOld) return;
    if (typeof event.n === 'number') follower.n = event.n;
    follower.onEvent(event);
  }

  // Without the worker, each page has a connection of its own.
  #moveToPage() {
    this.#leave();
    this.#local = this.#createLocal();
    for (const follower of this.#followers.values()) {
      follower.close = this.#local.follow(follower.generation, follower.n, follower.onEvent).close;
    }
    this.#followers.clear();
  }
}

function endsFollowing({ type }) {
  return TERMINAL.has(type) || type === 'refused';
}

// The worker sends no headers, and is this file itself: a bundle would run the whole application again.
function canShare(settings) {
  if (!settings.isShared || settings.transport === 'fetch' || typeof window === 'undefined') return false;
  if (typeof SharedWorker === 'undefined') return false;
  const isOwn = (url) => /^https?:/.test(url) && new URL(url).origin === location.origin;
  const workerUrl = new URL(settings.workerUrl, location.href).href;
  const isThisFile = settings.workerUrl !== import.meta.url || /\/everstream\.js$/.test(new URL(workerUrl).pathname);
  return isThisFile && isOwn(workerUrl) && isOwn(settings.baseUrl);
}

// The worker's side of SharedHub. Tabs of one service share one hub.
function serveTabs(scope) {
  const hubs = new Map();
  const tabs = new Set();
  const connectTo = typeof EventSource === 'undefined' ? connectByFetch : connectByEventSource;
  const getHub = (settings) => {
    const name = JSON.stringify(settings);
    if (!hubs.has(name)) hubs.set(name, new Hub({ ...settings, headers: {} }, connectTo));
    return hubs.get(name);
  };
  scope.addEventListener('connect', ({ ports: [port] }) => new Tab(port, getHub, tabs));
  setInterval(() => { for (const tab of tabs) tab.beat(); }, BEAT_MS);
}

/** The worker's view of a tab. It is among `tabs` while it follows something. */
class Tab {
  #port;
  #getHub;
  #tabs;
  #hub = null;
  #followed = new Map();
  #heardAt = 0;

  constructor(port, getHub, tabs) {
    this.#port = port;
    this.#getHub = getHub;
    this.#tabs = tabs;
    port.addEventListener('message', ({ data }) => this.#receive(data));
    port.addEventListener('close', () => this.#leave());
    port.start();
  }

  // A tab that crashed, or that the browser has frozen, doesn't answer. If it thaws, it follows again.
  beat() {
    if (Date.now() - this.#heardAt < GONE_AFTER_MS) this.#port.postMessage({ type: 'beat' });
    else {
      this.#leave();
      this.#port.postMessage({ type: 'dropped' });
    }
  }

  #receive({ type, settings, key, generation, after, ms }) {
    this.#heardAt = Date.now();
    if (type === 'begin') {
      this.#hub = this.#getHub(settings);
      this.#port.postMessage({ type: 'begun' });
    } else if (type === 'follow') this.#follow(key, generation, after);
    else if (type === 'unfollow') this.#unfollow(key);
    else if (type === 'leave') this.#leave();
    else if (type === 'wake') this.#hub.wake();
    else if (type === 'interrupt') this.#hub.interrupt(ms);
  }

  #follow(key, generation, after) {
    this.#followed.get(key)?.close();
    this.#tabs.add(this);
    const post = (event) => {
      this.#port.postMessage({ type: 'event', key, event });
      if (endsFollowing(event)) this.#unfollow(key);
    };
    this.#followed.set(key, this.#hub.follow(generation, after, post));
  }

  #unfollow(key) {
    this.#followed.get(key)?.close();
    this.#followed.delete(key);
    if (!this.#followed.size) this.#tabs.delete(this);
  }

  #leave() {
    for (const key of [...this.#followed.keys()]) this.#unfollow(key);
  }
}

const isWorker = typeof SharedWorkerGlobalScope !== 'undefined' && globalThis instanceof SharedWorkerGlobalScope;
// Not in an application's own worker that uses this module.
if (isWorker && globalThis.name === WORKER_NAME) serveTabs(globalThis);

// --- Transports: one connection to a stream of events. Each calls onEvent({ type, id, data }), and onLost(reason,
// retryAfterMs) once when the connection ends, and returns a function that closes it.

function connectByEventSource(settings, path, { onEvent, onLost }) {
  const source = new EventSource(settings.baseUrl + path, { withCredentials: settings.credentials === 'include' });
  const asking = new AbortController();
  for (const type of EVENTS) {
    source.addEventListener(type, (event) => {
      // EventSource's own `open` has no data; the server's has.
      if (event.data !== undefined) onEvent({ type, id: event.lastEventId, data: event.data });
    });
  }
  source.addEventListener('error', async () => {
    // It is closed if something answered, but not with a stream; it doesn't say what.
    const wasAnswered = source.readyState === 2;
    source.close();
    const { reason, retryAfterMs } = wasAnswered ? await ask(settings, path, asking) : { reason: LOST, retryAfterMs: 0 };
    onLost(reason, retryAfterMs);
  });
  return () => {
    source.close();
    asking.abort();
  };
}

// Why there is no stream.
async function ask(settings, path, asking) {
  try {
    const { response, ...refused } = await openStream(settings, path, asking.signal);
    return response ? { reason: LOST, retryAfterMs: 0 } : refused;
  } catch (error) {
    return { reason: { ...LOST, message: error.message }, retryAfterMs: 0 };
  } finally {
    asking.abort();
  }
}

function connectByFetch(settings, path, { onEvent, onBytes, onLost }) {
  const controller = new AbortController();
  readStream(settings, path, { signal: controller.signal, onEvent, onBytes }).then(
    ({ reason, retryAfterMs }) => onLost(reason, retryAfterMs),
    (error) => onLost({ ...LOST, message: error.message }, 0),
  );
  return () => controller.abort();
}

// Resolves when the stream ends.
async function readStream(settings, path, { signal, onEvent, onBytes }) {
  const { response, ...refused } = await openStream(settings, path, signal);
  if (!response) return refused;
  const decoder = new SseDecoder();
  const reader = response.body.getReader();
  while (true) {
    const { done, value } = await reader.read();
    if (done) return { reason: LOST, retryAfterMs: 0 };
    onBytes();
    for (const event of decoder.feed(value)) onEvent(event);
  }
}

// Returns { response } of a stream; or { reason, retryAfterMs }.
async function openStream(settings, path, signal) {
  const response = await fetchFrom(settings, path, { signal, headers: { Accept: 'text/event-stream' } });
  if (response.status === 200 && mediaType(response) === 'text/event-stream') return { response };
  return describe(response, await response.json().catch(() => null));
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
    // An empty line takes memory, too.
    this.#size += value.length + 1;
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

/** { generation, n } of `<generation>.<n>`; n is null for an event that is not in the log. null: not an event id. */
export function parseEventId(id) {
  const [, generation, n] = /^([0-9a-f]{32})\.(0|[1-9][0-9]{0,8}|expired)$/.exec(id) ?? [];
  return generation ? { generation, n: n === 'expired' ? null : Number(n) } : null;
}

/** Milliseconds to wait after so many failures. Half of it is random: clients that lost one server must not reconnect
 * together. */
export function backoff(failures) {
  const limit = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS);
  return limit / 2 + Math.random() * (limit / 2);
}

// Shorter, but not than `leastMs`, if the network or the page comes back.
function pause(ms, leastMs, signal) {
  const notBefore = Date.now() + leastMs;
  const listening = new AbortController();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    const wake = () => { if (Date.now() >= notBefore) end(); };
    const listen = (target, name, listener) => target?.addEventListener(name, listener, { signal: listening.signal });
    const page = typeof window === 'undefined' ? null : window;
    listen(page, 'online', wake);
    listen(page, 'pageshow', wake);
    listen(page?.document, 'visibilitychange', wake);
    listen(signal, 'abort', end);
    if (signal?.aborted) end();
  }).finally(() => listening.abort());
}

// A signal that also aborts after so long.
function limitTime(ms, signal) {
  const controller = new AbortController();
  let hasPassed = false;
  const abort = () => controller.abort();
  const timer = setTimeout(() => {
    hasPassed = true;
    abort();
  }, ms);
  signal?.addEventListener('abort', abort);
  if (signal?.aborted) abort();
  return {
    signal: controller.signal,
    hasPassed: () => hasPassed,
    end: () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    },
  };
}

function readObject(json) {
  try {
    const found = JSON.parse(json);
    return isObject(found) ? found : null;
  } catch {
    return null;
  }
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function clamp(value, least, most, otherwise) {
  return typeof value === 'number' && value >= least ? Math.min(value, most) : otherwise;
}

// 128 random bits; crypto.randomUUID needs a secure origin.
function newRequestId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
