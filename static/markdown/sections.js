// The blocks of an answer, in sections of a bounded size. A browser that lays out a new line looks at all siblings of
// its block; in sections there are few. And it skips the sections that are out of sight, see markdown.css.

import { adoptAfter, patchRest } from './patch.js';

const MAX_WEIGHT = 40;
// Of a part that may hold a hundred rows, a hundred items or much code.
const CONTAINER_WEIGHT = 10;

export function createSections(root) {
  let section = null;
  // The last finished block of the section, and what its blocks weigh.
  let last = null;
  let weight = 0;

  function begin() {
    const next = document.createElement('div');
    next.className = 'section';
    // What is open moves on.
    while (last && last.nextSibling) next.append(last.nextSibling);
    section = root.appendChild(next);
    last = null;
    weight = 0;
  }

  function makeRoom() {
    if (!section || weight >= MAX_WEIGHT) begin();
  }

  function add(put, blockWeight) {
    makeRoom();
    last = put(section, last);
    weight += blockWeight;
    return last;
  }

  return {
    // Finishes a block: `put` places it in an element, after a node, and returns it.
    add: (put) => add(put, 1),
    addContainer: (put) => add(put, CONTAINER_WEIGHT),
    // Makes the next block an element like this one. What it contains so far stays in it.
    adopt: (element) => add((parent, anchor) => adoptAfter(parent, anchor, element), CONTAINER_WEIGHT),
    // Shows what comes after the finished blocks.
    showOpen(nodes) {
      if (nodes.length > 0) makeRoom();
      if (section) patchRest(section, last, nodes);
    },
  };
}
