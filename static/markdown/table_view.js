// A table that is being written: its header, finished rows, then an open one. A long table is continued in another one
// with the same header, because a browser lays out a table as a whole.

import { TABLE_WRAPPER } from './parser.js';
import { adoptAfter, patchRest, removeAfter } from './patch.js';
import { fragmentOf } from './sanitise.js';

export function createTableView(_, sections) {
  let body = null;
  let last = null;

  function add(part, place) {
    if (part.type === 'header') begin(place);
    else last = place(body, last, (fragment) => rowsOf(fragment.firstChild));
  }

  function begin(place) {
    if (body) removeAfter(body, last);
    const table = adoptAfter(sections.adopt(emptyWrapper()), null, document.createElement('table'));
    const head = place(table, null, (fragment) => fragment.querySelectorAll('thead'));
    body = adoptAfter(table, head, document.createElement('tbody'));
    last = null;
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

function emptyWrapper() {
  return fragmentOf(TABLE_WRAPPER).firstChild;
}

function rowsOf(element) {
  const body = element.querySelector('tbody');
  return body ? body.childNodes : [];
}
