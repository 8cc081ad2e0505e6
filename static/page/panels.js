// The list of conversations and the health panel, which open and close.

import { readLocal, writeLocal } from './local.js';

const STORED = 'sidebar';
const IS_WIDE = window.matchMedia('(min-width: 75rem)');

export function createPanel(button, panel, onToggle = () => {}) {
  function set(isOpen) {
    panel.hidden = !isOpen;
    button.setAttribute('aria-expanded', String(isOpen));
    onToggle(isOpen);
  }

  button.addEventListener('click', () => set(panel.hidden));
  return { set, isOpen: () => !panel.hidden };
}

// On a wide screen it stays as it was left; where there is no room, it is on top of the conversation.
export function createSidebarPanel(button, panel) {
  const own = createPanel(button, panel, (isOpen) => {
    if (IS_WIDE.matches) writeLocal(STORED, isOpen);
    else if (isOpen) panel.querySelector('input').focus();
  });
  if (IS_WIDE.matches && readLocal(STORED, true)) own.set(true);
  return {
    isOnTop: () => own.isOpen() && getComputedStyle(panel).position === 'fixed',
    close() {
      own.set(false);
      button.focus();
    },
  };
}
