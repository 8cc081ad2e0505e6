// The turns of the open conversation. Renders at most once per frame, and only what may have changed.

import { pathTo, versionsOf } from './conversation.js';
import { createAnswer, createQuestion } from './turn.js';

export function createThread(element, actions) {
  const views = new Map();

  // Makes the page show this conversation's chosen branch. Between two frames of a running answer nothing else changes:
  // then `isStructureKnown`.
  function render({ conversation, messages, runOf, now, isOnline, isStructureKnown }) {
    const path = pathTo(messages, conversation.leaf);
    if (!isStructureKnown) arrange(path);
    const shown = isStructureKnown ? path.slice(-1) : path;
    for (const message of shown) {
      const versions = versionsOf(messages, message);
      const isLast = message === path.at(-1);
      views.get(message.id).update({ message, run: runOf(message.id), versions, isLast, now, isOnline });
    }
  }

  function arrange(path) {
    const wanted = new Set(path.map(({ id }) => id));
    for (const id of views.keys()) if (!wanted.has(id)) remove(id);
    path.forEach((message, at) => {
      if (!views.has(message.id)) {
        const create = message.role === 'user' ? createQuestion : createAnswer;
        views.set(message.id, create(actions));
      }
      const view = views.get(message.id);
      if (element.children[at] !== view.element) element.insertBefore(view.element, element.children[at] ?? null);
    });
  }

  function remove(id) {
    views.get(id).close();
    views.get(id).element.remove();
    views.delete(id);
  }

  // For another conversation.
  function clear() {
    for (const id of [...views.keys()]) remove(id);
  }

  return { render, clear };
}
