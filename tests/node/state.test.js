// What the page says of an answer, for every order of events that was thought of.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { applyEvent, describe, initialState, phaseOf } from '../../static/page/state.js';

const LOST = { status: 0, code: 'connection_lost', message: 'the connection was lost' };
const NOW = 1_000_000;

// Events as [type, data, n], all at `NOW` unless a number before them says how many ms later.
function after(...events) {
  let now = NOW;
  let state = initialState(NOW);
  for (const event of events) {
    if (typeof event === 'number') now += event;
    else {
      const [type, data = {}, n] = event;
      state = Object.freeze(applyEvent(state, { type, data, n }, now));
    }
  }
  return { state, now };
}

const OPEN = [['connecting'], ['started'], ['connected', { worker: 7, last: 0 }]];
const token = (n, text = 'a') => ['message', { text }, n];

const CASES = [
  ['before anything', [], 'sending', 'Sending…'],
  ['the POST is on its way', [['connecting']], 'sending', 'Sending…'],
  ['the POST was answered', [['connecting'], ['started']], 'connecting', 'Connecting…'],
  ['queued', [...OPEN, ['queued', { position: 2, length: 5 }]], 'queued', 'Queued: 2 of 5'],
  ['claimed', [...OPEN, ['queued', { position: 2, length: 5 }], ['queued', { position: 0, length: 4 }]], 'thinking', 'Thinking…'],
  ['the model loads', [...OPEN, ['engine', { state: 'loading', message: 'm is loading' }]], 'loading', 'Loading the model…'],
  ['it is loaded', [...OPEN, ['engine', { state: 'loading' }], ['engine', { state: 'ready' }]], 'thinking', 'Thinking…'],
  ['no token yet', OPEN, 'thinking', 'Thinking…'],
  ['a thought', [...OPEN, ['message', { text: '', choices: [{ reasoning: 'hm' }] }, 1]], 'thinking', 'Thinking…'],
  ['after a thought', [...OPEN, ['message', { text: '', choices: [{ reasoning: 'hm' }] }, 1], token(2)], 'streaming', 'Streaming'],
  ['a token', [...OPEN, token(1)], 'streaming', 'Streaming'],
  ['a token long ago', [...OPEN, token(1), 4000], 'waiting', 'Waiting for the next token'],
  ['the engine died', [...OPEN, token(1), ['engine', { state: 'loading', message: '' }]], 'restarting', 'The engine is restarting; the answer will go on from here'],
  ['requeued', [...OPEN, token(1), ['queued', { position: 1, length: 1 }]], 'restarting', 'The engine is restarting; the answer will go on from here'],
  ['it goes on', [...OPEN, token(1), ['queued', { position: 1, length: 1 }], ['resumed', { attempt: 2 }, 2], token(3)], 'streaming', 'Streaming'],
  ['cut', [...OPEN, token(1), ['reconnecting', { attempt: 1, delay_ms: 50, reason: LOST }]], 'reconnecting', 'Connection lost, reconnecting'],
  ['back', [...OPEN, token(1), ['reconnecting', { attempt: 1, delay_ms: 50, reason: LOST }], ['connected', { last: 1 }]], 'streaming', 'Streaming'],
  ['silent', [...OPEN, ['reconnecting', { attempt: 1, delay_ms: 0, reason: { status: 0, code: 'silent', message: 'nothing was received for 30 s' } }]], 'reconnecting', 'Connection lost (nothing was received for 30 s), reconnecting'],
  ['the queue is full', [['connecting'], ['reconnecting', { attempt: 1, delay_ms: 5000, reason: { status: 503, code: 'queue_full', message: '9 requests are already waiting' } }]], 'reconnecting', 'Waiting, because 9 requests are already waiting'],
  ['a proxy wants a sign-in', [...OPEN, ['reconnecting', { attempt: 1, delay_ms: 500, reason: { status: 401, code: 'not_everstream', message: '' } }]], 'reconnecting', 'Sign in again: the server answered 401'],
  ['stop', [...OPEN, token(1), ['stopping'], token(2), ['reconnecting', { attempt: 1, delay_ms: 50, reason: LOST }]], 'stopping', 'Stopping…'],
  ['stopped', [...OPEN, ['stopping'], ['cancelled', { reason: 'requested' }, 1]], 'cancelled', 'Stopped'],
  ['abandoned', [...OPEN, ['cancelled', { reason: 'abandoned' }, 1]], 'cancelled', 'Stopped: nobody was reading'],
  ['failed', [...OPEN, token(1), ['failed', { code: 'model_error', message: 'it raised' }, 2]], 'failed', 'Failed: it raised'],
  ['done', [...OPEN, token(1), ['done', { finish_reason: 'stop', usage: null }, 2]], 'done', 'Done'],
  ['cut short', [...OPEN, token(1), ['done', { finish_reason: 'length', usage: null }, 2]], 'done', 'Done: stopped at the length limit'],
  ['nothing changes after the end', [...OPEN, ['done', { finish_reason: 'stop' }, 1], token(2), ['stopping']], 'done', 'Done'],
  ['unknown events change nothing', [...OPEN, token(1), ['new-kind', { a: 1 }]], 'streaming', 'Streaming'],
];

for (const [name, events, phase, text] of CASES) {
  test(`${name}: ${phase}`, () => {
    const { state, now } = after(...events);
    const shown = describe(state, { now });
    assert.deepEqual([shown.phase, shown.text], [phase, text]);
  });
}

test('without a network, reconnecting is being offline', () => {
  const { state, now } = after(...OPEN, ['reconnecting', { attempt: 3, delay_ms: 900, reason: LOST }]);
  assert.equal(phaseOf(state, { now, isOnline: false }), 'offline');
  // A stream that lives, as from this machine itself, is none.
  assert.equal(phaseOf(after(...OPEN, token(1)).state, { now, isOnline: false }), 'streaming');
});

test('the next attempt is counted down', () => {
  const { state } = after(...OPEN, ['reconnecting', { attempt: 3, delay_ms: 8000, reason: LOST }]);
  assert.equal(describe(state, { now: NOW }).detail, 'attempt 3, in 8.0 s');
  assert.equal(describe(state, { now: NOW + 3000 }).detail, 'attempt 3, in 5.0 s');
  assert.equal(describe(state, { now: NOW + 7500 }).detail, 'attempt 3');
});

test('rate and time to the first token', () => {
  const tokens = Array.from({ length: 50 }, (_, n) => [100, token(n + 1)]).flat();
  const { state, now } = after(...OPEN, 300, ...tokens);
  assert.equal(describe(state, { now }).detail, '10 tokens/s · first token after 0.4 s');
  const done = applyEvent(state, { type: 'done', data: { finish_reason: 'stop', usage: { completion_tokens: 50 } } }, now);
  assert.equal(describe(done, { now }).detail, '50 tokens · 10 tokens/s · first token after 0.4 s');
});

test('a burst of older tokens is no rate', () => {
  const burst = Array.from({ length: 100 }, (_, n) => token(n + 1));
  const { state, now } = after(['connecting'], ['started'], ['connected', { last: 100 }], ...burst, ['caught_up', { count: 100 }]);
  assert.equal(describe({ ...state, sentAt: null }, { now }).detail, 'caught up 100 tokens');
  assert.equal(describe(state, { now: now + 2000 }).text, 'Streaming');
});

test('a pause is no slow token', () => {
  const tokens = Array.from({ length: 50 }, (_, n) => [100, token(n + 1)]).flat();
  const { state, now } = after(...OPEN, ...tokens, 60_000, token(51), 100, token(52));
  assert.match(describe(state, { now }).detail, /^10 tokens/);
});

test('loading takes time', () => {
  const { state } = after(...OPEN, ['engine', { state: 'loading', message: 'm is loading' }]);
  assert.equal(describe(state, { now: NOW + 5000 }).detail, 'm is loading · 5 s');
});

test('reconnects and restarts are counted', () => {
  const lost = (attempt) => ['reconnecting', { attempt, delay_ms: 1, reason: LOST }];
  const { state } = after(...OPEN, lost(1), lost(2), ['connected', { last: 0 }], lost(1), ['resumed', { attempt: 2 }, 1]);
  assert.deepEqual([state.reconnects, state.resumes], [2, 1]);
});
