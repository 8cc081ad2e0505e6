/** The types of everstream-client. docs/client.md describes what they mean. */

/** Any JSON value. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json | undefined };

/** One turn of a conversation, as in OpenAI's API. */
export interface Message {
  readonly role: string;
  readonly content: Json;
  readonly [name: string]: Json | undefined;
}

/** A prompt, messages, an object of the model's inputs, or the text of one. */
export type Input = string | readonly Message[] | Readonly<Record<string, unknown>> | JsonInputs;

/** Inputs as the text of a JSON object, for numbers that JavaScript would round. */
export class JsonInputs {
  /** Throws SyntaxError, and TypeError if it is not an object. */
  constructor(text: string);
  readonly text: string;
}

/** One output of a model: for chat `{ text }`, and more if the request asks for more. */
export interface Output {
  readonly text?: string;
  readonly [name: string]: unknown;
}

export interface Usage {
  readonly prompt_tokens?: number;
  readonly completion_tokens?: number;
  readonly total_tokens?: number;
  readonly [name: string]: unknown;
}

/** Why there is no connection. */
export interface Reason {
  /** Of the response; 0: there was none, or it broke off. */
  readonly status: number;
  /** The service's own code, `not_everstream` if something else answered, `connection_lost`, `silent`, `gap`,
   * `invalid_event` or `interrupted`. */
  readonly code: string;
  readonly message: string;
  readonly param?: string | null;
}

interface EventOf<Type extends string, Data> {
  readonly type: Type;
  /** `<generation>.<n>`; empty if the event is not in the log. */
  readonly id: string;
  /** The entry's number in the log; null if it is not in the log. */
  readonly n: number | null;
  readonly data: Data;
  /** The text that `data` was parsed from. */
  readonly json: string;
}

export type OpenEvent = EventOf<'open', { readonly generation: string; readonly model: string }>;
export type OutputEvent = EventOf<'message', Output>;
/** Another engine goes on, because the one before it died. */
export type ResumedEvent = EventOf<'resumed', { readonly attempt: number }>;
export type DoneEvent = EventOf<'done', { readonly finish_reason: string | null; readonly usage: Usage | null }>;
export type CancelledEvent = EventOf<'cancelled', { readonly reason: string }>;
export type FailedEvent = EventOf<'failed', {
  readonly code: string;
  readonly message: string;
  readonly param?: string | null;
  readonly status?: number;
}>;

/** What ends a generation. */
export type TerminalEvent = DoneEvent | CancelledEvent | FailedEvent;

/** The entries of a generation's log. */
export type Entry = OpenEvent | OutputEvent | ResumedEvent | TerminalEvent;

/** What the service tells besides. */
export type QueuedEvent = EventOf<'queued', {
  readonly generation: string;
  /** From 1; 0 once an engine has claimed it. */
  readonly position: number;
  readonly length: number;
}>;
export type EngineEvent = EventOf<'engine', {
  readonly generation: string;
  readonly state: 'ready' | 'loading' | 'failed';
  readonly message: string;
}>;

/** What the client itself tells. */
export type ConnectingEvent = EventOf<'connecting', Readonly<Record<string, never>>>;
export type StartedEvent = EventOf<'started', { readonly generation: string }>;
/** `worker`: the process that answers; `last`: the number of the log's last entry at that time. */
export type ConnectedEvent = EventOf<'connected', { readonly worker?: number; readonly last: number }>;
/** All `count` entries have come that the log had when the connection was made. */
export type CaughtUpEvent = EventOf<'caught_up', { readonly count: number }>;
/** `attempt`: since there was progress. */
export type ReconnectingEvent = EventOf<'reconnecting', {
  readonly attempt: number;
  readonly delay_ms: number;
  readonly reason: Reason;
}>;

export type ClientEvent = ConnectingEvent | StartedEvent | ConnectedEvent | CaughtUpEvent | ReconnectingEvent;

export type AnswerEvent = Entry | QueuedEvent | EngineEvent | ClientEvent;

export interface AnswerOptions {
  /** Ends the reading, and leaves the generation running. */
  readonly signal?: AbortSignal | undefined;
  readonly onEvent?: ((event: AnswerEvent) => void) | undefined;
  readonly onText?: ((text: string, event: OutputEvent) => void) | undefined;
}

export interface StartOptions extends AnswerOptions {
  readonly model?: string | undefined;
  /** Tokens within so many milliseconds come in one event. */
  readonly flushMs?: number | undefined;
  /** 16 to 64 of `A-Z a-z 0-9 . _ -`: the same id with the same inputs is the same generation. Default: 128 random bits. */
  readonly requestId?: string | undefined;
}

export interface FollowOptions extends AnswerOptions {
  /** The number of the last entry that the caller has. */
  readonly after?: number | undefined;
}

export interface StopOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A whole answer. */
export interface Result {
  readonly id: string;
  readonly text: string;
  readonly state: 'done';
  readonly finish_reason: string | null;
  readonly usage: Usage | null;
}

/** One generation, as this client sees it. */
export interface Answer extends AsyncIterable<Entry> {
  /** The generation's; empty until the service has answered the start. */
  readonly id: string;
  /** Of a start; else empty. */
  readonly requestId: string;
  /** So far. */
  readonly text: string;
  /** It has ended, was refused, aborted or closed. */
  readonly isOver: boolean;
  /** Why it is over, unless it is whole: EverstreamError, or the signal's reason. */
  readonly error: unknown;
  /** The texts as they come. Throws unless the generation ends with `done`. */
  texts(): AsyncGenerator<string, void, void>;
  /** The whole answer. Rejects unless the generation ends with `done`. */
  result(): Promise<Result>;
  /** Stop the generation. Resolves once the service has acknowledged it. Rejects with EverstreamError if it refuses. */
  stop(): Promise<void>;
  /** Stop reading, and leave the generation running. */
  close(): void;
  /** The log's entries, up to the terminal one. Leaving the loop early closes the answer. */
  [Symbol.asyncIterator](): AsyncGenerator<Entry, void, void>;
}

export type Fetch = (input: string, init?: RequestInit) => Promise<Response>;

export interface ClientOptions {
  /** Where the service is. Default: where this module is, if the service serves it; else the page's origin. */
  readonly baseUrl?: string | URL | undefined;
  /** Sent with every request; or a function that is asked before each. They need the transport `fetch`. */
  readonly headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>) | undefined;
  /** Default: `same-origin`. */
  readonly credentials?: RequestCredentials | undefined;
  /** Default: `eventsource`, if there is one and it can do what the other options ask for. */
  readonly transport?: 'eventsource' | 'fetch' | undefined;
  readonly fetch?: Fetch | undefined;
  /** Whether all tabs share one connection, if they can. Default: true. */
  readonly isShared?: boolean | undefined;
  /** Where the page's own origin has this module, if it was bundled. */
  readonly workerUrl?: string | URL | undefined;
  /** How long a hidden page keeps a connection of its own; Infinity: always. Default: 30,000. */
  readonly hiddenAfterMs?: number | undefined;
}

export interface Client {
  /** Throws TypeError if the input can't be sent; what the service says comes through the answer. */
  start(input: Input, options?: StartOptions): Answer;
  /** Throws TypeError if it is no id. */
  follow(id: string, options?: FollowOptions): Answer;
  /** Resolves once the service has acknowledged it, or knows no such generation. */
  stop(id: string, options?: StopOptions): Promise<void>;
  /** Lose the connection on purpose, and don't reconnect for so long: to see what happens. */
  interrupt(ms?: number): void;
  /** Close all answers, and the connection. */
  close(): void;
}

export function createClient(options?: ClientOptions): Client;

/** Those of a client with no options. */
export function start(input: Input, options?: StartOptions): Answer;
export function follow(id: string, options?: FollowOptions): Answer;
export function stop(id: string, options?: StopOptions): Promise<void>;

export interface ErrorDetails {
  readonly message: string;
  readonly code: string;
  readonly param?: string | null;
  readonly status?: number;
}

/** A request that was refused, or an answer that isn't whole. */
export class EverstreamError extends Error {
  constructor(details: ErrorDetails);
  /** The service's code; or `cancelled`, `closed`. */
  readonly code: string;
  /** The input at fault. */
  readonly param: string | null;
  /** Of the response that said so; 0: none did. */
  readonly status: number;
}

export interface DecodedEvent {
  readonly type: string;
  readonly id: string;
  readonly data: string;
}

/** Server-Sent Events as the standard has them: bytes in, whole events out. */
export class SseDecoder {
  constructor();
  readonly lastEventId: string;
  readonly retryMs: number | null;
  /** Throws if an event is too large. */
  feed(bytes: Uint8Array): DecodedEvent[];
}

export interface EventPlace {
  readonly generation: string;
  /** null: the event is not in the log. */
  readonly n: number | null;
}

/** null: it is not an event id. */
export function parseEventId(id: string): EventPlace | null;

/** Milliseconds to wait after so many failures. */
export function backoff(failures: number): number;
