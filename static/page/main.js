// The page: a conversation with the served models. This file ties the parts together: what a button does, and what is
// rendered when. The parts: conversation (pure), state (pure), store, answers, thread, composer, sidebar, drawer, health.

import { createClient } from '../client/everstream.js';
import { createAnswers } from './answers.js';
import { createAnnouncer, createTabMark } from './attention.js';
import { createComposer } from './composer.js';
import {
  answerText, newAnswer, newConversation, newestLeaf, newQuestion, pathTo, questionText, titleOf, toJson, toMarkdown,
  withDescendants,
} from './conversation.js';
import { download, newId, setText } from './dom.js';
import { createDrawer } from './drawer.js';
import { createHealth } from './health.js';
import { readLocal, writeLocal } from './local.js';
import { labelOf, watchModels } from './models.js';
import { canContinueWith, chatInputs, continuingInputs, formInputs } from './requests.js';
import { followBottom } from './scroll.js';
import { createSidebar } from './sidebar.js';
import { describe, initialState } from './state.js';
import { openStore } from './store.js';
import { createThread } from './thread.js';

const TICK_MS = 500;
const LAST_MODEL = 'model';
const SIDEBAR = 'sidebar';
const IS_WIDE = window.matchMedia('(min-width: 75rem)');

const find = (selector) => document.querySelector(selector);

const client = createClient();
const store = await openStore();
const status = find('#status');
const detail = find('#detail');
const announcer = createAnnouncer(find('#announcer'));
const markTab = createTabMark();
const health = createHealth(find('#health'), client);
const scroll = followBottom(find('#to-bottom'));
const answers = createAnswers({ client, store, onChange: handleChange });

let models = [];
let conversation = newConversation({ id: newId(), now: Date.now() });
let messages = new Map();
// A generation of someone else that the address names; it is not kept.
let isShared = false;
let frame = 0;
let isOnline = navigator.onLine;
let announced = '';

// --- What people do

const actions = {
  canSend: true,
  get canContinue() {
    const model = modelOf(conversation);
    return Boolean(model) && canContinueWith(model) && !isShared;
  },
  resend: (question, text) => ask({ text, values: null, parent: question.parent }),
  regenerate: (answer) => answerAgain(messages.get(answer.parent)),
  continueAnswer,
  deleteFrom,
  choose(message) {
    conversation.leaf = newestLeaf(messages, message.id);
    keepConversation();
    render();
  },
  linkTo: (answer) => `${location.href.split('#')[0]}#g=${answer.generation}`,
};

const thread = createThread(find('#thread'), actions);
const composer = createComposer(find('#composer'), {
  send({ text, values }) {
    if (isShared) startNew();
    ask({ text, values, parent: conversation.leaf });
  },
  stop,
});
const drawer = createDrawer(find('#drawer'), (given) => {
  Object.assign(conversation, given);
  if (messages.size) keepConversation();
});
const sidebar = createSidebar(find('#sidebar'), {
  search: (text) => store.search(text),
  remove: removeConversation,
});

function ask({ text, values, parent }) {
  const model = modelOf(conversation);
  const question = newQuestion({ id: newId(), conversation: conversation.id, parent, now: Date.now(), text, values });
  messages.set(question.id, question);
  conversation.title ||= titleOf(questionText(question));
  store.putMessage(question).catch(showUnkept);
  answerAgain(question, model);
}

// A new answer to a question, beside any that it has.
function answerAgain(question, model = modelOf(conversation)) {
  const path = pathTo(messages, question.id);
  const request = tryMake(() => (question.values ? formInputs(model, question.values) : chatInputs(model, conversation, path)), model);
  const answer = newAnswer({ id: newId(), conversation: conversation.id, parent: question.id, now: Date.now(), request, model: model.name });
  messages.set(answer.id, answer);
  conversation.leaf = answer.id;
  begin(answer, request);
}

function continueAnswer(answer) {
  const model = modelOf(conversation);
  const request = tryMake(() => continuingInputs(model, conversation, pathTo(messages, answer.id)), model);
  const { id, parent, createdAt } = answer;
  const next = newAnswer({ id, conversation: conversation.id, parent, now: createdAt, request, model: model.name });
  Object.assign(next, { prefix: answerText(answer), reasoning: answer.reasoning });
  messages.set(id, next);
  begin(next, request);
}

// Until the models are known, the service takes its first one.
function tryMake(makeInputs, model) {
  try {
    return { inputs: makeInputs(), model: models.length > 1 ? model.name : undefined, requestId: newId() };
  } catch (error) {
    return { error: error.message };
  }
}

function begin(answer, request) {
  if (request.error) {
    answer.end = { type: 'failed', code: 'invalid_request', message: request.error };
    store.putMessage(answer).catch(showUnkept);
  } else {
    // Kept before it is sent, so that a reload sends it again, with the same request id.
    store.putMessage(answer).catch(showUnkept);
    answers.run(answer, { isNew: true, isKept: !isShared });
  }
  announcer.reset(answer.prefix.length);
  announced = answer.id;
  conversation.updatedAt = Date.now();
  keepConversation();
  showAddress();
  render();
  scroll.toBottom();
  composer.focus();
}

function stop() {
  const run = currentRun();
  if (run) answers.stop(run.message.id);
}

async function deleteFrom(message) {
  const ids = withDescendants(messages, message.id);
  for (const id of ids) {
    answers.drop(id);
    messages.delete(id);
  }
  conversation.leaf = message.parent === null ? (newestLeaf(messages, null)) : newestLeaf(messages, message.parent);
  await store.deleteMessages(ids);
  keepConversation();
  render();
}

async function removeConversation(id) {
  const title = (await store.conversations()).find((each) => each.id === id)?.title ?? '';
  if (!window.confirm(`Delete the conversation “${title}”?`)) return;
  for (const message of (await store.messages(id)).keys()) answers.drop(message);
  await store.deleteConversation(id);
  if (id === conversation.id) startNew();
  await showList();
}

function startNew() {
  const { model, system, settings } = conversation;
  open(newConversation({ id: newId(), now: Date.now(), model, system, settings }), new Map());
  history.pushState(null, '', location.href.split('#')[0]);
  composer.focus();
}

// --- What is shown

// `found`: its messages.
function open(given, found, { shared = false } = {}) {
  conversation = given;
  messages = found;
  isShared = shared;
  actions.canSend = !shared;
  thread.clear();
  announcer.reset();
  announced = '';
  showModels();
  showList();
  render();
  scroll.toBottom();
}

function modelOf({ model }) {
  return models.find(({ name }) => name === model) ?? models[0] ?? UNKNOWN_MODEL;
}

// Until the service has said what it serves.
const UNKNOWN_MODEL = { name: '', state: 'loading', is_streaming: true, inputs: { prompt: { is_prompt: true, datatype: 'STRING', shape: [1] } } };

function currentRun() {
  return answers.runOf(conversation.leaf);
}

function handleChange(run) {
  if (messages.get(run.message.id) === run.message) renderSoon();
}

// Many tokens may arrive within one frame, so render once.
function renderSoon() {
  if (!frame) frame = requestAnimationFrame(render);
}

function render() {
  cancelAnimationFrame(frame);
  frame = 0;
  const now = Date.now();
  thread.render({ conversation, messages, runOf: answers.runOf, now, isOnline });
  find('#welcome').hidden = messages.size > 0;
  const leaf = messages.get(conversation.leaf);
  const run = currentRun();
  showStatus(run, leaf, now);
  composer.show({ model: models.length ? modelOf(conversation) : null, isBusy: Boolean(run), isStopping: run?.state.isStopping ?? false });
  if (run && !find('#health').hidden) health.show(run);
  if (leaf?.role === 'assistant' && announced === leaf.id) announce(leaf);
  scroll.keep();
}

function showStatus(run, leaf, now) {
  const shown = run ? describe(run.state, { now, isOnline }) : describeRest(leaf, now);
  setText(status, shown.text);
  setText(detail, shown.detail);
  find('#state').dataset.phase = shown.phase;
  const mark = run ? 'busy' : { done: 'done', failed: 'failed' }[leaf?.end?.type] ?? 'idle';
  markTab({ title: conversation.title, phase: mark });
}

// Without a stream: how the last answer ended, or what the model does.
function describeRest(leaf, now) {
  if (leaf?.end) return { ...describe({ ...initialState(), end: leaf.end }, { now, isOnline }), detail: leaf.stats };
  const model = models.length ? modelOf(conversation) : null;
  if (!isOnline) return { phase: 'offline', text: 'Offline', detail: '' };
  if (!model) return { phase: 'connecting', text: 'Connecting…', detail: '' };
  if (model.state === 'failed') return { phase: 'failed', text: `Failed: ${model.error}`, detail: '' };
  if (model.state !== 'ready') return { phase: 'loading', text: 'Loading the model…', detail: model.message ?? '' };
  return { phase: 'idle', text: 'Ready', detail: '' };
}

function announce(message) {
  const text = answerText(message);
  if (!message.end) announcer.say(text);
  else {
    announcer.finish(text);
    announced = '';
  }
}

function showModels() {
  const select = find('#model');
  if (!models.length) return;
  select.replaceChildren(...models.map((model) => new Option(labelOf(model), model.name)));
  select.value = modelOf(conversation).name;
  select.disabled = models.length < 2;
  find('#models').hidden = false;
  drawer.show(conversation, modelOf(conversation));
}

async function showList() {
  sidebar.show(await store.conversations(), conversation.id);
}

function keepConversation() {
  if (isShared) return;
  store.putConversation(conversation).then(showList, showUnkept);
}

function showUnkept() {
  find('#unkept').hidden = false;
}

// --- The address: #c=<conversation> is in this browser, #g=<generation> can be shared

function showAddress() {
  const hash = `#c=${conversation.id}`;
  if (!isShared && location.hash !== hash) history.replaceState(null, '', hash);
}

async function openAddress() {
  const [, kind, id] = location.hash.match(/^#([cg])=([0-9a-f]{32})$/) ?? [];
  if (kind === 'g') openShared(id);
  else if (kind === 'c' && id !== conversation.id) {
    const found = (await store.conversations()).find((each) => each.id === id);
    if (found) open(found, withRunning(await store.messages(id)));
    else history.replaceState(null, '', location.href.split('#')[0]);
  }
}

// Answers that go on are the same objects here as there.
function withRunning(found) {
  for (const id of found.keys()) {
    const run = answers.runOf(id);
    if (run) found.set(id, run.message);
  }
  return found;
}

function openShared(generation) {
  const own = newConversation({ id: newId(), now: Date.now() });
  const answer = newAnswer({ id: newId(), conversation: own.id, parent: null, now: Date.now(), request: null });
  Object.assign(answer, { generation });
  own.leaf = answer.id;
  own.title = 'Shared answer';
  open(own, new Map([[answer.id, answer]]), { shared: true });
  answers.run(answer, { isKept: false });
  announced = answer.id;
}

// --- Start

const askAgain = watchModels((found) => {
  models = found;
  showModels();
  render();
}, () => modelOf(conversation).state === 'ready');

find('#model').addEventListener('change', ({ target }) => {
  conversation.model = target.value;
  writeLocal(LAST_MODEL, target.value);
  if (messages.size) keepConversation();
  showModels();
  render();
  askAgain();
});

for (const [selector, run] of Object.entries({
  '#new': startNew,
  '#open-drawer': drawer.open,
  '#open-health': () => togglePanel('#open-health', '#health'),
  '#open-sidebar': toggleSidebar,
  '#export-markdown': () => exportAs('md', 'text/markdown', toMarkdown(conversation, pathTo(messages, conversation.leaf))),
  '#export-json': () => exportAs('json', 'application/json', toJson(conversation, messages)),
})) find(selector).addEventListener('click', run);

function togglePanel(button, panel, isOpen = find(panel).hidden) {
  find(panel).hidden = !isOpen;
  find(button).setAttribute('aria-expanded', String(isOpen));
  render();
}

function toggleSidebar() {
  togglePanel('#open-sidebar', '#sidebar');
  if (IS_WIDE.matches) writeLocal(SIDEBAR, !find('#sidebar').hidden);
  else if (!find('#sidebar').hidden) find('#sidebar input').focus();
}

// Where there is no room beside the conversation, the list is on top of it.
function isOverlaid() {
  return !find('#sidebar').hidden && getComputedStyle(find('#sidebar')).position === 'fixed';
}

function closeSidebar() {
  togglePanel('#open-sidebar', '#sidebar', false);
  find('#open-sidebar').focus();
}

function exportAs(ending, type, text) {
  const name = (conversation.title || 'conversation').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60);
  download(`${name || 'conversation'}.${ending}`, type, text);
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !find('dialog[open]')) {
    if (isOverlaid()) closeSidebar();
    else stop();
  }
  if (event.key === 'O' && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    startNew();
  }
});
window.addEventListener('hashchange', () => {
  if (isOverlaid()) closeSidebar();
  openAddress();
});
for (const type of ['online', 'offline']) {
  window.addEventListener(type, () => {
    isOnline = navigator.onLine;
    renderSoon();
  });
}
store.watch(showList);
// Seconds pass, also when nothing arrives.
setInterval(() => { if (currentRun()) renderSoon(); }, TICK_MS);

conversation.model = readLocal(LAST_MODEL, '');
if (!store.isPersistent) showUnkept();
for (const message of await store.openAnswers()) answers.run(message);
await openAddress();
await showList();
togglePanel('#open-sidebar', '#sidebar', IS_WIDE.matches && readLocal(SIDEBAR, true));
composer.focus();
