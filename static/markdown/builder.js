// Builds an answer's nodes from the splitter's parts. The nodes of finished parts come first and are left alone; those
// of the open rest come after them, in the same container, and are changed into what the rest has become.

import { createCodeView } from './code_view.js';
import { createListView } from './list_view.js';
import { toHtml } from './parser.js';
import { patchAfter, patchNode } from './patch.js';
import { createReferences } from './references.js';
import { fragmentOf } from './sanitise.js';
import { createSections } from './sections.js';
import { createTableView } from './table_view.js';
import { PENDING } from './typeset.js';
import { presentable } from './unfinished.js';

const VIEWS = { list: createListView, table: createTableView, code: createCodeView };

// Calls `onPending` when there is a formula that can't be typeset yet.
export function createBuilder(root, onPending) {
  const references = createReferences();
  const sections = createSections(root);
  // The list, table or code block that is being written.
  let view = null;

  function add(part) {
    if (part.type === 'block') sections.add((parent, anchor) => place(parent, anchor, part, (made) => made.childNodes));
    else if (part.type === 'close') close();
    else if (part.type in VIEWS) view = VIEWS[part.type](part, { sections, place, shellOf });
    else view.add(part);
    references.resolve();
  }

  // A part's outermost element, empty.
  function shellOf(part) {
    return rendered(part, { references: {} }).firstChild.cloneNode(false);
  }

  function close() {
    view.close();
    view = null;
  }

  // Puts a part's nodes after `anchor`. `select` picks them from what it renders as. Returns the last one. If a
  // definition comes later that they refer to, they are changed in place.
  function place(parent, anchor, part, select) {
    const render = () => references.track((known) => select(rendered(part, { references: known, isWhole: true })));
    const { result, missing } = render();
    const placed = patchAfter(parent, anchor, result);
    references.wait(missing, function again() {
      const { result: nodes, missing: stillMissing } = render();
      Array.from(nodes).forEach((node, index) => { placed[index] = patchNode(parent, placed[index], node); });
      references.wait(stillMissing, again);
    });
    return placed.at(-1) || anchor;
  }

  // `rest`: the splitter's `open`. What ends the list or the table, if its first line came, is shown after it.
  function showOpen(rest) {
    if (rest.code) {
      view.showOpen(rest.code);
      sections.showOpen([]);
      return;
    }
    const env = { references: references.copy(), isUnfinished: true, isContinued: rest.isContinued };
    const nodes = Array.from(rendered({ ...rest, source: presentable(rest.source) }, env).childNodes);
    if (view) view.showOpen(view.isSame(nodes[0]) ? nodes.shift() : null, rest);
    sections.showOpen(nodes);
  }

  function rendered({ source, isContinued }, env) {
    const html = toHtml(source, { isContinued, ...env });
    if (html.includes(PENDING)) onPending();
    return fragmentOf(html);
  }

  return { add, showOpen };
}
