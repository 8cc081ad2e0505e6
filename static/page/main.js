// The page: a conversation with the served models. This file ties the parts together: what people do to the
// conversation, and what is shown when.

import { createClient } from '../client/everstream.js';
import { addressOfAnswer, readAddress, showAddressOf, showNoAddress } from './address.js';
import { createAnswers } from './answers.js';
import { createAnnouncer, createTabMark } from './attention.js';
import { createComposer } from './composer.js';
import {
  answerText, newAnswer, newConversation, newestLeaf, newQuestion, pathTo, questionText, titleOf, toJson, toMarkdown,
  withDescendants,
} from './conversation.js';
import { download, newId } from './dom.js';
import { createDrawer } from './drawer.js';
import { createHealth } from './health.js';
import { readLocal, writeLocal } from './local.js';
import { labelOf, watchModels } from './models.js';
import { createPanel, createSidebarPanel } from './panels.js';
import { canContinueWith, chatInputs, continuingInputs, formInputs } from './requests.js';
import { followBottom } from './scroll.js';
import { createSession } from './session.js';
import { createSidebar } from './sidebar.js';
import { createStatusLine, statusOf } from './status.js';
import { openStore } from './store.js';
import { createThread } from './thread.js';

const TICK_MS = 500;
const LAST_MODEL = 'model';
// Until the service has said what it serves.
const UNKNOWN_MODEL = { name: '', inputs: { prompt: { is_prompt: true, datatype: 'STRING', shape: [1] } } };

const find = (selector) => document.querySelector(selector);

const client = createClient();
const store = await openStore(showUnkept);
const session = createSession(find('#sign-in'), find('#session'));
const answers = createAnswers({ client, store, onChange: handleChange, onSignedOut: session.renew });
const showStatus = createStatusLine(find('#state'));
const markTab = createTabMark();
const announcer = createAnnouncer(find('#announcer'));
const scroll = followBottom(find('#to-bottom'));
const health = createHealth(find('#health'), client);
createPanel(find('#open-health'), find('#health'), () => renderSoon());
const sidebarPanel = createSidebarPanel(find('#open-sidebar'), find('#sidebar'));

let models = [];
let conversation = newConversation({ id: newId(), now: Date.now() });
let messages = new Map();
// The conversation is someone else's answer that the address names. It is not kept.
let isShared = false;
let frame = 0;
// Turns were added or removed, so the frame shows all of them anew.
let isRearranged = true;
let isOnline = navigator.onLine;
// Until it is known which conversation is open, nothing is asked.
let isStarting = true;
// The message that is read out.
let announced = '';

// --- What people do

const actions = {
  canSend: true,
  get canContinue() {
    return canContinueWith(currentModel()) && !isShared;
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
  linkTo: addressOfAnswer,
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
  const question = newQuestion({ id: newId(), conversation: conversation.id, parent, now: Date.now(), text, values });
  messages.set(question.id, question);
  conversation.title ||= titleOf(questionText(question));
  keepMessage(question);
  answerAgain(question);
}

// A new answer to a question, beside any that it has.
function answerAgain(question) {
  const model = currentModel();
  const path = pathTo(messages, question.id);
  const request = makeRequest(model, () => (
    question.values ? formInputs(model, question.values) : chatInputs(model, conversation, path)
  ));
  begin(newAnswer({
    id: newId(), conversation: conversation.id, parent: question.id, now: Date.now(), request, model: model.name,
  }));
}

function continueAnswer(answer) {
  const model = currentModel();
  const request = makeRequest(model, () => continuingInputs(model, conversation, pathTo(messages, answer.id)));
  const { id, parent, createdAt, reasoning } = answer;
  const next = newAnswer({ id, conversation: conversation.id, parent, now: createdAt, request, model: model.name });
  begin(Object.assign(next, { prefix: answerText(answer), reasoning, version: answer.version + 1 }));
}

// { inputs, model, requestId }; or { error }. If only one model is served, none is named.
function makeRequest(model, makeInputs) {
  try {
    return { inputs: makeInputs(), model: models.length > 1 ? model.name : undefined, requestId: newId() };
  } catch (error) {
    return { error: error.message };
  }
}

function begin(answer) {
  const { error } = answer.request;
  messages.set(answer.id, answer);
  conversation.leaf = answer.id;
  conversation.updatedAt = Date.now();
  if (error) answer.end = { type: 'failed', code: 'invalid_request', message: error };
  // Kept before it is sent, so that a reload sends it again, with the same request id.
  keepMessage(answer);
  if (!error) answers.run(answer, { isNew: true });
  announcer.reset(answer.prefix.length);
  announced = answer.id;
  keepConversation();
  showAddressOf(conversation);
  render();
  scroll.toBottom();
  composer.focus();
}

// A shared answer is its author's to stop.
function stop() {
  const run = currentRun();
  if (run && !isShared) answers.stop(run.message.id);
}

function deleteFrom(message) {
  if (!window.confirm('Delete this question and everything after it?')) return;
  const ids = withDescendants(messages, message.id);
  for (const id of ids) answers.drop(id);
  forget(ids);
  conversation.leaf = newestLeaf(messages, message.parent);
  store.deleteMessages(ids).catch(showUnkept);
  keepConversation();
  render();
}

// Also what another tab has deleted.
function forget(ids) {
  for (const id of ids) {
    answers.close(id);
    messages.delete(id);
  }
  if (!messages.has(conversation.leaf)) conversation.leaf = newestLeaf(messages, null);
}

async function removeConversation(id) {
  const { title = '' } = (await store.conversations()).find((each) => each.id === id) ?? {};
  if (!window.confirm(`Delete the conversation “${title}”?`)) return;
  for (const message of (await store.messages(id)).keys()) answers.drop(message);
  await store.deleteConversation(id);
  if (id === conversation.id) startNew();
  await showList();
}

function startNew() {
  openNew();
  showNoAddress({ isNewEntry: true });
  composer.focus();
}

// --- What is open

// `found`: its messages.
function open(given, found, { shared = false } = {}) {
  // Nobody else reads a shared answer here.
  if (isShared) answers.close(conversation.leaf);
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

function openNew() {
  const { model, system, settings } = conversation;
  open(newConversation({ id: newId(), now: Date.now(), model, system, settings }), new Map());
}

async function openAddress() {
  const { conversation: id, generation } = readAddress();
  if (generation) openShared(generation);
  if (!generation && !id && messages.size) openNew();
  if (!id || id === conversation.id) return;
  const found = (await store.conversations()).find((each) => each.id === id);
  if (found) open(found, withRunning(await store.messages(id)));
  else showNoAddress();
}

// Answers that go on are the same objects here as there.
function withRunning(found) {
  for (const id of found.keys()) {
    const run = answers.runOf(id);
    if (run) found.set(id, run.message);
  }
  return found;
}

// Another tab has gone on with the open conversation: show that, unless this tab is on another branch.
async function refresh() {
  const { id } = conversation;
  const [found, kept] = await Promise.all([store.messages(id), store.conversations()]);
  if (id !== conversation.id) return;
  for (const message of [...found.values()].filter((each) => !messages.has(each.id))) {
    messages.set(message.id, message);
    if (message.role === 'assistant' && !message.end) answers.run(message);
  }
  const { leaf = null } = kept.find((each) => each.id === id) ?? {};
  if (pathTo(messages, leaf).some((message) => message.id === conversation.leaf)) conversation.leaf = leaf;
  render();
}

function openShared(generation) {
  const own = newConversation({ id: newId(), now: Date.now() });
  const answer = newAnswer({ id: newId(), conversation: own.id, parent: null, now: Date.now(), request: null });
  Object.assign(answer, { generation });
  Object.assign(own, { leaf: answer.id, title: 'Shared answer' });
  open(own, new Map([[answer.id, answer]]), { shared: true });
  answers.run(answer, { isKept: false });
  announced = answer.id;
}

function currentModel() {
  return models.find(({ name }) => name === conversation.model) ?? models[0] ?? UNKNOWN_MODEL;
}

function currentRun() {
  return answers.runOf(conversation.leaf);
}

// --- What is shown

function handleChange({ message, state }) {
  if (messages.get(message.id) !== message) return;
  if (state.end) isRearranged = true;
  renderSoon();
}

// Many tokens may arrive within one frame, so render once.
function renderSoon() {
  if (!frame) frame = requestAnimationFrame(renderFrame);
}

function render() {
  isRearranged = true;
  cancelAnimationFrame(frame);
  renderFrame();
}

function renderFrame() {
  frame = 0;
  const now = Date.now();
  const run = currentRun();
  const last = messages.get(conversation.leaf);
  const model = models.length ? currentModel() : null;
  thread.render({ conversation, messages, runOf: answers.runOf, now, isOnline, isStructureKnown: !isRearranged });
  isRearranged = false;
  find('#welcome').hidden = messages.size > 0;
  const status = statusOf({ run, last, model, now, isOnline });
  showStatus(status);
  markTab({ title: conversation.title, phase: status.mark });
  composer.show({ model, isBusy: Boolean(run) && !isShared, isStopping: run?.state.isStopping ?? false, isStarting });
  if (!find('#health').hidden) health.show(run);
  if (last?.id === announced) announce(last);
  scroll.keep();
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
  select.value = currentModel().name;
  select.disabled = models.length < 2;
  find('#models').hidden = false;
  drawer.show(conversation, currentModel());
}

async function showList() {
  sidebar.show(await store.conversations(), conversation.id);
}

function keepConversation() {
  if (!isShared) store.putConversation(conversation).then(showList, showUnkept);
}

function keepMessage(message) {
  store.putMessage(message).catch(showUnkept);
}

function showUnkept() {
  find('#unkept').hidden = false;
}

function exportAs(ending, type, text) {
  const name = conversation.title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60);
  download(`${name || 'conversation'}.${ending}`, type, text);
}

// --- Start

await session.begin();
const askAgain = watchModels((found) => {
  models = found;
  showModels();
  render();
}, () => currentModel().state === 'ready', session.renew);

find('#model').addEventListener('change', ({ target }) => {
  conversation.model = target.value;
  writeLocal(LAST_MODEL, target.value);
  if (messages.size) keepConversation();
  showModels();
  render();
  askAgain();
});
for (const [selector, act] of Object.entries({
  '#new': startNew,
  '#open-drawer': drawer.open,
  '#export-markdown': () => exportAs('md', 'text/markdown', toMarkdown(conversation, pathTo(messages, conversation.leaf))),
  '#export-json': () => exportAs('json', 'application/json', toJson(conversation, messages)),
})) find(selector).addEventListener('click', act);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !event.isComposing && !isTakingEscape(event.target)) {
    if (sidebarPanel.isOnTop()) sidebarPanel.close();
    else stop();
  }
  if (event.key === 'O' && event.ctrlKey && event.shiftKey) {
    event.preventDefault();
    startNew();
  }
});
// Escape closes a dialog, empties a search and leaves a list of choices.
function isTakingEscape(element) {
  return find('dialog[open]') !== null || element.matches('input[type=search], select');
}

window.addEventListener('hashchange', () => {
  if (sidebarPanel.isOnTop()) sidebarPanel.close();
  openAddress();
});
for (const type of ['online', 'offline']) {
  window.addEventListener(type, () => {
    isOnline = navigator.onLine;
    renderSoon();
  });
}
store.watch({
  onChange(id) {
    showList();
    if (id === conversation.id) refresh();
  },
  onDelete(ids) {
    forget(ids);
    render();
  },
});
// Seconds pass, also when nothing arrives.
setInterval(() => { if (currentRun()) renderSoon(); }, TICK_MS);

conversation.model = readLocal(LAST_MODEL, '');
if (!store.isPersistent) showUnkept();
for (const message of await store.openAnswers()) answers.run(message);
answers.repeatStops();
await openAddress();
await showList();
isStarting = false;
render();
composer.focus();
