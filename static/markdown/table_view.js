// A table that is being written: its header, finished rows, then an open one. A long table is continued in another one
// with the same header, because a browser lays out a table as a whole.

import { adoptAfter, patchRest, removeAfter } from './patch.js';

export function createTableView(header, { sections, place, shellOf }) {
  let body = null;
  let last = null;
  begin();

  function begin() {
    const table = adoptAfter(sections.adopt(shellOf(header)), null, document.createElement('table'));
    const head = place(table, null, header, (fragment) => fragment.querySelectorAll('thead'));
    body = adoptAfter(table, head, document.createElement('tbody'));
    last = null;
  }

  function add(part) {
    if (part.isNewTable) {
      removeAfter(body, last);
      begin();
    }
    last = place(body, last, part, (fragment) => rowsOf(fragment.firstChild));
  }

  function isSame(node) {
    return Boolean(node) && node.classList.contains('table');
  }

  function showOpen(element) {
    patchRest(body, last, element ? rowsOf(element) : []);
  }

  function close() {
    removeAfter(body, last);
    if (!last) body.remove();
  }

  return { add, isSame, showOpen, close };
}

function rowsOf(element) {
  const body = element.querySelector('tbody');
  return body ? body.childNodes : [];
}
