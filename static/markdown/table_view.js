// A table that is being written: its header, finished rows, then an open one. A long table is continued in another one
// with the same header, because a browser lays out a table as a whole.

import { patchRest, removeAfter } from './patch.js';

export function createTableView(header, { addBlock, place }) {
  let body = null;
  let last = null;
  begin();

  function begin() {
    body = addBlock(header).firstChild.appendChild(document.createElement('tbody'));
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
