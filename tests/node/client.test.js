// The parts of everstream-client that need no browser. The streams are those of the Web Platform Tests for EventSource
// (eventsource/format-*), as the standard has them decoded.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { backoff, createClient, EverstreamError, JsonInputs, parseEventId, SseDecoder } from '../../static/client/everstream.js';

const encoder = new TextEncoder();
const GENERATION = '0123456789abcdef'.repeat(2);

function decode(chunks) {
  const decoder = new SseDecoder();
  const events = chunks.flatMap((chunk) => decoder.feed(chunk));
  return { events, decoder };
}

const event = (data, type = 'message', id = '') => ({ type, id, data });

// Name: the stream; its events; and what remains: the last id and the retry, if they are set.
const FORMATS = {
  'bom': ['\uFEFFdata:1\n\n\uFEFFdata:2\n\ndata:3\n\n', [event('1'), event('3')]],
  'bom-2': ['\uFEFF\uFEFFdata:1\n\ndata:2\n\ndata:3\n\n', [event('2'), event('3')]],
  'comments': ['data:1\r:\0\n:\r\ndata:2\n:' + 'x'.repeat(2049) + '\rdata:3\n:data:fail\r:' + 'x'.repeat(2049) + '\ndata:4\n\n', [event('1\n2\n3\n4')]],
  'data-before-final-empty-line': ['retry:1000\ndata:test1\n\nid:test\ndata:test2', [event('test1')], { retryMs: 1000 }],
  'field-data': ['data:\n\ndata\ndata\n\ndata:test\n\n', [event(''), event('\n'), event('test')]],
  'field-event': ['event:test\ndata:x\n\ndata:x\n\n', [event('x', 'test'), event('x')]],
  'field-event-empty': ['event: \ndata:data\n\n', [event('data')]],
  'field-id': ['id: …\ndata:hello\n\nretry:1\n', [event('hello', 'message', '…')], { lastEventId: '…', retryMs: 1 }],
  'field-id-2': ['id\ndata:1\n\nid:x\ndata:2\n\ndata:3\n\nid\ndata:4\n\n', [event('1'), event('2', 'message', 'x'), event('3', 'message', 'x'), event('4')]],
  'field-id-3': ['id:1\n\ndata:hello\n\n', [event('hello', 'message', '1')], { lastEventId: '1' }],
  'field-id-null': ['id: \0a\ndata:1\n\nid:a\0\ndata:2\n\n', [event('1'), event('2')]],
  'field-parsing': ['data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n', [event('\0\n 2\n1\n3\n\n4')]],
  'field-retry': ['retry:3000\ndata:x\n\n', [event('x')], { retryMs: 3000 }],
  'field-retry-bogus': ['retry:3000\nretry:1000x\nretry:-1\nretry:+5\nretry:1_000\nretry:٣\ndata:x\n\n', [event('x')], { retryMs: 3000 }],
  'field-retry-empty': ['retry\nretry:\ndata:test\n\n', [event('test')], { retryMs: null }],
  'field-unknown': ['data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n', [event('test\n')]],
  'leading-space': ['data:\ttest\rdata: \ndata:test\n\n', [event('\ttest\n\ntest')]],
  'newlines': ['data:test\r\ndata\ndata:test\r\n\r', [event('test\n\ntest')]],
  'null-character': ['data:\0\n\n\n\n', [event('\0')]],
  'utf-8': ['data:ok…\n\ndata: é 🎈 \u2028\u0085\n\n', [event('ok…'), event('é 🎈 \u2028\u0085')]],
  'event-data': ['data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n', [event('msg\nmsg'), event(''), event('end')]],
  'no-data': ['event:test\n\nid:1\n\ndata:x\n\n', [event('x', 'message', '1')]],
};

for (const [name, [stream, expected, state = {}]] of Object.entries(FORMATS)) {
  test(`format-${name}`, () => {
    const bytes = encoder.encode(stream);
    const found = decode([bytes]);
    assert.deepEqual(found.events, expected);
    for (const [field, value] of Object.entries(state)) assert.equal(found.decoder[field], value);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      assert.deepEqual(decode([bytes.subarray(0, cut), bytes.subarray(cut)]).events, expected, `cut at byte ${cut}`);
    }
    assert.deepEqual(decode([...bytes].map((byte) => Uint8Array.of(byte))).events, expected);
  });
}

test('bytes that are no UTF-8 are replaced', () => {
  const bytes = Uint8Array.of(...encoder.encode('data:'), 0xff, 0xc3, ...encoder.encode('\n\n'));
  assert.deepEqual(decode([bytes]).events, [event('\uFFFD\uFFFD')]);
});

test('an event of any size takes bounded memory', () => {
  const line = encoder.encode(`data:${'x'.repeat(1 << 20)}\n`);
  assert.throws(() => decode(Array(65).fill(line)), /too large/);
  const endless = encoder.encode('x'.repeat(1 << 20));
  assert.throws(() => decode(Array(65).fill(endless)), /too large/);
  // An end sets the bound back.
  const small = encoder.encode(`data:${'x'.repeat(1 << 20)}\n\n`);
  assert.equal(decode(Array(65).fill(small)).events.length, 65);
});

test('backoff doubles up to its bound, and half of it is random', () => {
  for (const [failures, limit] of [[0, 500], [1, 1000], [5, 16_000], [6, 30_000], [40, 30_000], [5000, 30_000]]) {
    const delays = Array.from({ length: 200 }, () => backoff(failures));
    assert.ok(Math.min(...delays) >= limit / 2 && Math.max(...delays) <= limit);
    assert.ok(new Set(delays).size > 100);
  }
});

test('event ids', () => {
  assert.deepEqual(parseEventId(`${GENERATION}.0`), { generation: GENERATION, n: 0 });
  assert.deepEqual(parseEventId(`${GENERATION}.999999999`), { generation: GENERATION, n: 999_999_999 });
  assert.deepEqual(parseEventId(`${GENERATION}.expired`), { generation: GENERATION, n: null });
  for (const id of ['', GENERATION, `${GENERATION}.`, `${GENERATION}.-1`, `${GENERATION}.01`, `${GENERATION}.1-0`,
    `${GENERATION}.1e3`, `${GENERATION}.1\n`, `${GENERATION}.1234567890`, `${GENERATION.toUpperCase()}.1`, 'x.1']) {
    assert.equal(parseEventId(id), null, id);
  }
});

test('inputs as JSON are checked', () => {
  assert.equal(new JsonInputs(' {"a": 1} ').text, '{"a": 1}');
  for (const text of ['[]', 'null', '1', '"x"']) assert.throws(() => new JsonInputs(text), TypeError);
  assert.throws(() => new JsonInputs('{"a":'), SyntaxError);
});

test('outside a page, a client needs an address, and uses fetch', () => {
  assert.throws(() => createClient(), /baseUrl is missing/);
  assert.throws(() => createClient({ baseUrl: 'http://127.0.0.1', transport: 'eventsource' }), TypeError);
});

test('errors say what went wrong', () => {
  const error = new EverstreamError({ message: 'no', code: 'invalid_request', param: 'texts', status: 400 });
  assert.ok(error instanceof Error);
  assert.deepEqual([error.name, error.message, error.code, error.param, error.status],
    ['EverstreamError', 'no', 'invalid_request', 'texts', 400]);
});

// A server in the service's place; it gives `respond(request, response)`'s answers.
async function withServer(respond, use) {
  const server = createServer(respond);
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const client = createClient({ baseUrl: `http://127.0.0.1:${server.address().port}`, headers: { 'X-Key': 'k' } });
  try {
    return await use(client);
  } finally {
    client.close();
    server.closeAllConnections();
    await new Promise((resolve) => { server.close(resolve); });
  }
}

const WHOLE = `event: ping\ndata: {"generation":"${GENERATION}","interval_ms":1000,"retry_ms":1,"last":1}\n\n`
  + `event: open\nid: ${GENERATION}.0\ndata: {}\n\nid: ${GENERATION}.1\ndata: {"text":"a"}\n\n`
  + `event: done\nid: ${GENERATION}.2\ndata: {"finish_reason":"stop","usage":null}\n\n`;

// WPT's format-mime-*.
for (const [type, isStream] of [
  ['text/event-stream', true],
  ['text/event-stream;', true],
  ['TEXT/Event-Stream; charset=utf-8', true],
  ['text/event-stream;bogus', true],
  ['text/x%20bogus', false],
  ['text/event-streams', false],
]) {
  test(`format-mime: ${type}`, async () => {
    const types = [type, 'text/event-stream'];
    const respond = (request, response) => {
      response.writeHead(200, { 'Content-Type': types.shift() });
      response.end(WHOLE);
    };
    const events = [];
    const text = await withServer(respond, async (client) => {
      const answer = client.follow(GENERATION, { onEvent: (each) => events.push(each) });
      return (await answer.result()).text;
    });
    assert.equal(text, 'a');
    const reasons = events.filter((each) => each.type === 'reconnecting').map(({ data }) => data.reason.code);
    assert.deepEqual(reasons, isStream ? [] : ['not_everstream']);
  });
}

test('headers go with every request', async () => {
  const seen = [];
  const respond = (request, response) => {
    seen.push([request.method, request.url, request.headers['x-key']]);
    if (request.method === 'GET') {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.end(WHOLE);
    } else {
      response.writeHead(200);
      response.end(JSON.stringify({ id: GENERATION, state: 'done' }));
    }
  };
  await withServer(respond, async (client) => {
    const answer = client.start('hi');
    await answer.result();
    await answer.stop();
  });
  assert.deepEqual(seen, [
    ['POST', '/generations', 'k'],
    ['GET', `/events?generation=${GENERATION}`, 'k'],
    ['DELETE', `/generations/${GENERATION}`, 'k'],
  ]);
});

test('a retry is asked for by date as well as by seconds', async () => {
  const seen = [];
  const later = [new Date(Date.now() + 30_000).toUTCString(), '20', 'soon'];
  const respond = (request, response) => {
    response.writeHead(503, { 'Retry-After': later.shift() ?? '', 'Content-Type': 'text/html' });
    response.end('<html>');
  };
  for (let times = 3; times; times -= 1) {
    await withServer(respond, async (client) => {
      const answer = client.start('hi', {
        onEvent({ type, data }) {
          if (type !== 'reconnecting') return;
          seen.push(data.delay_ms);
          answer.close();
        },
      });
      await assert.rejects(answer.result(), { code: 'closed' });
    });
  }
  assert.ok(seen[0] > 25_000 && seen[0] <= 30_000, seen);
  assert.equal(seen[1], 20_000);
  assert.ok(seen[2] <= 500, seen);
});
