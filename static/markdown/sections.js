// The blocks of an answer, in sections of a bounded size. A browser that lays out a new line looks at all siblings of
// its block; in sections there are few. And it skips the sections that are out of sight, see markdown.css.

import { adoptAfter, patchRest } from './patch.js';

const MAX_BLOCKS = 40;

export function createSections(root) {
  let section = null;
  // The last finished block of the section, and how many there are.
  let last = null;
  let count = 0;

  function begin() {
    const next = document.createElement('div');
    next.className = 'section';
    // What is open moves on.
    while (last && last.nextSibling) next.append(last.nextSibling);
    section = root.appendChild(next);
    last = null;
    count = 0;
  }

  function makeRoom() {
    if (!section || count >= MAX_BLOCKS) begin();
  }

  return {
    // Finishes blocks: `put` places them in an element, after a node, and returns the last one.
    add(put) {
      makeRoom();
      last = put(section, last);
      count += 1;
      return last;
    },
    // Makes the next block an element like this one. What it contains so far stays in it.
    adopt(element) {
      return this.add((parent, anchor) => adoptAfter(parent, anchor, element));
    },
    // Shows what comes after the finished blocks.
    showOpen(nodes) {
      if (nodes.length > 0) makeRoom();
      if (section) patchRest(section, last, nodes);
    },
  };
}
