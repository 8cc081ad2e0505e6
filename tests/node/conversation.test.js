// Conversations as trees: branches, what a model is sent, and exports.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  canContinue, chatMessages, newAnswer, newConversation, newestLeaf, newQuestion, pathTo, questionText, titleOf, toJson,
  toMarkdown, versionsOf, withDescendants,
} from '../../static/page/conversation.js';
import { canContinueWith, chatInputs, continuingInputs, hasHistory } from '../../static/page/requests.js';

const CONVERSATION = newConversation({ id: 'c', now: 1 });
const MODEL = {
  name: 'm',
  inputs: {
    prompt: { datatype: 'STRING', shape: [1], required: false, is_prompt: true },
    messages: { datatype: 'STRING', shape: [1], required: false, format: 'json' },
    temperature: { datatype: 'FP32', shape: [1], required: false },
    seed: { datatype: 'INT64', shape: [1], required: false },
    stop: { datatype: 'STRING', shape: [-1], required: false },
    continue_final_message: { datatype: 'BOOL', shape: [1], required: false },
  },
};

let now = 0;

function question(id, parent, text) {
  now += 1;
  return newQuestion({ id, conversation: 'c', parent, now, text });
}

function answer(id, parent, text, end = { type: 'done', finish_reason: 'stop' }) {
  now += 1;
  return { ...newAnswer({ id, conversation: 'c', parent, now, request: { model: undefined } }), text, end };
}

function tree(...messages) {
  return new Map(messages.map((message) => [message.id, message]));
}

const TREE = tree(
  question('q1', null, 'one'), answer('a1', 'q1', 'first'), question('q2', 'a1', 'two'), answer('a2', 'q2', 'second'),
  question('q1b', null, 'one, edited'), answer('a1b', 'q1b', 'other'), answer('a1c', 'q1b', 'another'),
);

test('a branch is the way to its last message', () => {
  assert.deepEqual(pathTo(TREE, 'a2').map(({ id }) => id), ['q1', 'a1', 'q2', 'a2']);
  assert.deepEqual(pathTo(TREE, null), []);
});

test('versions are siblings in the order of their making', () => {
  assert.deepEqual(versionsOf(TREE, TREE.get('q1')).map(({ id }) => id), ['q1', 'q1b']);
  assert.deepEqual(versionsOf(TREE, TREE.get('a1c')).map(({ id }) => id), ['a1b', 'a1c']);
  assert.equal(newestLeaf(TREE, 'q1'), 'a2');
  assert.equal(newestLeaf(TREE, 'q1b'), 'a1c');
  assert.deepEqual(withDescendants(TREE, 'a1'), ['a1', 'q2', 'a2']);
});

test('a model is sent the branch, with the system prompt first', () => {
  const system = { ...CONVERSATION, system: 'Be terse.' };
  assert.deepEqual(chatMessages(system, pathTo(TREE, 'q2')), [
    { role: 'system', content: 'Be terse.' }, { role: 'user', content: 'one' },
    { role: 'assistant', content: 'first' }, { role: 'user', content: 'two' },
  ]);
});

test('an answer without text is not sent', () => {
  const messages = tree(question('q', null, 'one'), answer('a', 'q', '', { type: 'failed' }), question('r', 'a', 'two'));
  assert.deepEqual(chatMessages(CONVERSATION, pathTo(messages, 'r')).map(({ content }) => content), ['one', 'two']);
});

test('settings are sent as typed', () => {
  const conversation = { ...CONVERSATION, settings: { seed: '9223372036854775807', temperature: '', stop: '["a"]', unknown: '1' } };
  const json = chatInputs(MODEL, conversation, pathTo(TREE, 'q1'));
  assert.equal(json, '{"messages":[{"role":"user","content":"one"}],"seed":9223372036854775807,"stop":["a"]}');
  assert.throws(() => chatInputs(MODEL, { ...CONVERSATION, settings: { stop: 'a' } }, pathTo(TREE, 'q1')), /stop must be JSON/);
});

test('a model without messages gets the prompt alone', () => {
  const model = { name: 'm', inputs: { prompt: MODEL.inputs.prompt } };
  assert.equal(hasHistory(model), false);
  assert.equal(chatInputs(model, { ...CONVERSATION, system: 'x' }, pathTo(TREE, 'q2')), '{"prompt":"two"}');
});

test('an answer that stopped early can go on', () => {
  const ends = [
    [{ type: 'done', finish_reason: 'stop' }, false], [{ type: 'done', finish_reason: 'length' }, true],
    [{ type: 'cancelled', reason: 'abandoned' }, true], [{ type: 'failed', code: 'x' }, true], [null, false],
  ];
  for (const [end, can] of ends) assert.equal(canContinue(answer('a', 'q', 'text', end)), can);
  assert.equal(canContinue(answer('a', 'q', '', { type: 'failed' })), false);
  assert.equal(canContinueWith(MODEL), true);
  assert.deepEqual(JSON.parse(continuingInputs(MODEL, CONVERSATION, pathTo(TREE, 'a1'))), {
    messages: [{ role: 'user', content: 'one' }, { role: 'assistant', content: 'first' }],
    continue_final_message: true,
    add_generation_prompt: false,
  });
});

test('titles are short', () => {
  assert.equal(titleOf('  Why?\nBecause.'), 'Why?');
  assert.equal(titleOf('x'.repeat(100)).length, 60);
});

test('a form is shown by its values', () => {
  assert.equal(questionText({ values: { text: 'say', speed: '1.5', seed: '', is_loud: null } }), 'text: say\nspeed: 1.5');
});

test('exports have the branch, and everything', () => {
  const markdown = toMarkdown({ ...CONVERSATION, title: 'One', system: 'Be\nterse' }, pathTo(TREE, 'a1'));
  assert.equal(markdown, '# One\n\n> Be\n> terse\n\n## You\n\none\n\n## Answer\n\nfirst\n');
  const json = JSON.parse(toJson(CONVERSATION, TREE));
  assert.deepEqual(json.messages.map(({ id }) => id), [...TREE.keys()]);
  assert.equal('request' in json.messages[1], false);
});
