// The turns of the open conversation. Renders at most once per frame, and only what may have changed.

import { pathTo, versionsOf } from './conversation.js';
import { createAnswer, createQuestion } from './turn.js';

export function createThread(element, actions) {
  const views = new Map();

  // Makes the page show this conversation's chosen branch.
  function render({ conversation, messages, runOf, now, isOnline }) {
    const path = pathTo(messages, conversation.leaf);
    const wanted = new Set(path.map(({ id }) => id));
    for (const [id, view] of views) {
      if (!wanted.has(id)) {
        view.element.remove();
        views.delete(id);
      }
    }
    path.forEach((message, at) => {
      if (!views.has(message.id)) {
        const create = message.role === 'user' ? createQuestion : createAnswer;
        views.set(message.id, create(actions));
      }
      const view = views.get(message.id);
      if (element.children[at] !== view.element) element.insertBefore(view.element, element.children[at] ?? null);
      const versions = versionsOf(messages, message);
      view.update({ message, run: runOf(message.id), versions, isLast: at === path.length - 1, now, isOnline });
    });
  }

  // For another conversation.
  function clear() {
    element.replaceChildren();
    views.clear();
  }

  return { render, clear };
}
