// A list that is being written: finished items, then open ones. A long list is continued in another list element.

import { adoptAfter, patchRest, removeAfter } from './patch.js';

const MAX_ITEMS = 100;

export function createListView({ tag, start }, sections) {
  const elements = [];
  let count = 0;
  // The last finished item, and if only its first part is finished, the last node of that part.
  let last = null;
  let lastInItem = null;
  let isLoose = false;
  begin();

  function begin() {
    const next = document.createElement(tag);
    const first = (start ?? 1) + count;
    if (tag === 'ol' && first !== 1) next.setAttribute('start', first);
    next.setAttribute('dir', 'auto');
    if (isLoose) next.className = 'loose';
    const element = sections.adopt(next);
    // What is open moves on.
    while (last && last.nextSibling) element.append(last.nextSibling);
    elements.push(element);
    last = null;
    lastInItem = null;
  }

  const current = () => elements.at(-1);

  function add(part, place) {
    if (part.type === 'loose') {
      isLoose = true;
      setLoose(true);
    } else if (part.type === 'item') {
      addItem(place);
    } else {
      lastInItem = place(last, lastInItem, (fragment) => restOfItem(fragment.firstChild.firstChild));
    }
  }

  function addItem(place) {
    if (last) removeAfter(last, lastInItem);
    if (count > 0 && count % MAX_ITEMS === 0) begin();
    count += 1;
    last = adoptAfter(current(), last, document.createElement('li'));
    lastInItem = place(last, null, (fragment) => fragment.firstChild.firstChild.childNodes);
    removeAfter(last, lastInItem);
  }

  function setLoose(isSo) {
    for (const element of elements) {
      if (isSo) element.className = 'loose';
      else element.removeAttribute('class');
    }
  }

  function isSame(node) {
    return Boolean(node) && node.nodeName === current().nodeName;
  }

  function showOpen(list, { isContinued }) {
    const items = list ? Array.from(list.childNodes) : [];
    if (!isLoose) setLoose(Boolean(list) && list.classList.contains('loose'));
    if (isContinued && items.length > 0) patchRest(last, lastInItem, restOfItem(items.shift()));
    patchRest(current(), last, items);
  }

  function close() {
    if (last) removeAfter(last, lastInItem);
    removeAfter(current(), last);
    setLoose(isLoose);
  }

  return { add, isSame, showOpen, close };
}

// Without the empty heading that stands for what is before, see cuts.js.
function restOfItem(item) {
  return Array.from(item.childNodes).slice(1);
}
