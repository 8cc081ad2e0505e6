// Uses each export of everstream-client, so that the compiler compares them with how they are meant to be used.

import {
  backoff,
  createClient,
  EverstreamError,
  follow,
  JsonInputs,
  parseEventId,
  SseDecoder,
  start,
  stop,
} from 'everstream-client';
import type { Answer, AnswerEvent, Client, ClientOptions, Entry, Input, Result } from 'everstream-client';

const options: ClientOptions = {
  baseUrl: new URL('https://example.org/ai/'),
  headers: async () => ({ Authorization: 'Bearer x' }),
  credentials: 'include',
  transport: 'fetch',
  fetch: (input, init) => fetch(input, init),
  isShared: false,
  workerUrl: '/everstream.js',
  hiddenAfterMs: Infinity,
};

const inputs: Input[] = [
  'Why is the sky blue?',
  [{ role: 'user', content: 'Why?' }, { role: 'user', content: [{ type: 'text', text: 'Why?' }] }],
  { prompt: 'Why?', max_tokens: 5 },
  new JsonInputs('{"seed": 9223372036854775807}'),
];

export function describe(event: AnswerEvent): string {
  switch (event.type) {
    case 'open': return event.data.model;
    case 'message': return event.data.text ?? event.json;
    case 'resumed': return `attempt ${event.data.attempt}`;
    case 'done': return `${event.data.finish_reason} after ${event.data.usage?.completion_tokens ?? 0}`;
    case 'cancelled': return event.data.reason;
    case 'failed': return `${event.data.code}: ${event.data.message}`;
    case 'queued': return `${event.data.position} of ${event.data.length}`;
    case 'engine': return `${event.data.state}: ${event.data.message}`;
    case 'connecting': return event.type;
    case 'started': return event.data.generation;
    case 'connected': return `${event.data.worker}, ${event.data.last}`;
    case 'caught_up': return `${event.data.count}`;
    case 'reconnecting': return `${event.data.attempt}, ${event.data.delay_ms}: ${event.data.reason.status}`;
    default: {
      const none: never = event;
      return none;
    }
  }
}

export async function read(client: Client, input: Input): Promise<Result | null> {
  const { signal } = new AbortController();
  const answer: Answer = client.start(input, { signal, model: 'm', flushMs: 16, requestId: 'x'.repeat(16), onEvent: describe });
  try {
    for await (const text of answer.texts()) console.log(text.length, answer.text.length);
    for await (const entry of client.follow(answer.id, { after: 3, onText: (text, { n }) => console.log(text, n) })) {
      const known: Entry = entry;
      const place: { generation: string; n: number | null } | null = parseEventId(known.id);
      console.log(place?.n ?? 'no number');
    }
    return await answer.result();
  } catch (error) {
    if (error instanceof EverstreamError) console.log(error.code, error.status, error.param, error.message);
    await answer.stop();
    answer.close();
    return null;
  }
}

export async function main(): Promise<void> {
  const client = createClient(options);
  for (const input of inputs) await read(client, input);
  client.interrupt(5000);
  client.close();
  const answer = start('Why?');
  follow(answer.id).close();
  await stop(answer.id, { signal: AbortSignal.timeout(1000) });
  const decoder = new SseDecoder();
  const [first] = decoder.feed(new Uint8Array([10]));
  console.log(first?.data, decoder.lastEventId, decoder.retryMs, backoff(3).toFixed());
}

// @ts-expect-error: it is not an input
start(5);
// @ts-expect-error: the id is not optional
follow();
// @ts-expect-error: such an event doesn't exist
createClient().start('x', { onEvent: (event) => event.type === 'token' });
// @ts-expect-error: read only
start('x').text = '';
