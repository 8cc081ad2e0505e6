// A conversation as a tree of messages: an edited question or another answer is a branch of its own. Pure.
//
// conversation: { id, title, createdAt, updatedAt, model, system, settings, leaf }
// message: { id, conversation, parent, role, createdAt, text, … }, see `newQuestion` and `newAnswer`
// `messages` is a Map by id.

const TITLE_CHARS = 60;

export function newConversation({ id, now, model = '', system = '', settings = {} }) {
  return { id, title: '', createdAt: now, updatedAt: now, model, system, settings, leaf: null };
}

// `values`: of a form, for a model that is no chat, instead of a text.
export function newQuestion({ id, conversation, parent, now, text, values = null }) {
  return { id, conversation, parent, role: 'user', createdAt: now, text, values };
}

// `request`: { inputs, model, requestId } with the inputs as JSON text, so that it can be sent again.
export function newAnswer({ id, conversation, parent, now, request, model = '' }) {
  return {
    id,
    conversation,
    parent,
    role: 'assistant',
    createdAt: now,
    // What an earlier generation said that this one continues.
    prefix: '',
    text: '',
    reasoning: '',
    // Outputs that are more than a text, each as JSON text.
    outputs: [],
    request,
    model,
    generation: '',
    // The number of the log's last entry that is part of `text` and `outputs`.
    n: -1,
    // Counts how often it was continued.
    version: 0,
    // null until it has ended: { type, … }, as in the state.
    end: null,
    stats: '',
  };
}

export function answerText(message) {
  return message.prefix + message.text;
}

// The messages from the first one to `leaf`.
export function pathTo(messages, leaf) {
  const path = [];
  for (let at = messages.get(leaf); at; at = messages.get(at.parent)) path.unshift(at);
  return path;
}

export function childrenOf(messages, parent) {
  return [...messages.values()].filter((message) => message.parent === parent).sort((a, b) => a.createdAt - b.createdAt);
}

// All versions of a message, itself included, oldest first.
export function versionsOf(messages, message) {
  return childrenOf(messages, message.parent);
}

// The last message of the newest branch below a message.
export function newestLeaf(messages, id) {
  const newest = childrenOf(messages, id).at(-1);
  return newest ? newestLeaf(messages, newest.id) : id;
}

export function withDescendants(messages, id) {
  return [id, ...childrenOf(messages, id).flatMap((child) => withDescendants(messages, child.id))];
}

// As the chat model takes them. Answers without text are left out: chat templates refuse them, and they say nothing.
export function chatMessages(conversation, path) {
  const system = conversation.system.trim() ? [{ role: 'system', content: conversation.system }] : [];
  const turns = path.map((message) => ({ role: message.role, content: contentOf(message) }));
  return [...system, ...turns.filter(({ role, content }) => role === 'user' || content)];
}

function contentOf(message) {
  return message.role === 'user' ? message.text : answerText(message);
}

// An answer that stopped early can go on from its last token.
export function canContinue(message) {
  const { end } = message;
  if (!end || !answerText(message) || message.outputs.length) return false;
  return end.type !== 'done' || end.finish_reason === 'length';
}

export function titleOf(text) {
  const line = text.trim().split('\n', 1)[0];
  return line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS - 1).trimEnd()}…` : line;
}

export function toMarkdown(conversation, path) {
  const parts = [`# ${conversation.title || 'Conversation'}`];
  if (conversation.system.trim()) parts.push(`> ${conversation.system.trim().replaceAll('\n', '\n> ')}`);
  for (const message of path) {
    parts.push(message.role === 'user' ? '## You' : `## ${message.model || 'Answer'}`);
    parts.push(...(message.outputs?.length ? message.outputs.map((json) => `\`\`\`json\n${json}\n\`\`\``) : []));
    parts.push(message.role === 'user' ? questionText(message) : answerText(message));
    if (message.end && message.end.type !== 'done') parts.push(`*(${message.end.type}: ${reasonOf(message.end)})*`);
  }
  return `${parts.filter(Boolean).join('\n\n')}\n`;
}

function reasonOf(end) {
  return end.message ?? end.reason ?? '';
}

// What a user asked, also with a form.
export function questionText(message) {
  if (!message.values) return message.text;
  return Object.entries(message.values).filter(([, value]) => value !== '' && value !== null)
    .map(([name, value]) => `${name}: ${value}`).join('\n');
}

// Everything but what only this page needs.
export function toJson(conversation, messages) {
  const kept = [...messages.values()].map(({ conversation: _, request, n, ...message }) => message);
  return `${JSON.stringify({ ...conversation, messages: kept }, null, 2)}\n`;
}
