// Builds an answer's nodes from the splitter's parts. The nodes of finished parts come first and are left alone; those
// of the open rest come after them, in the same container, and are changed into what the rest has become.

import { createCodeView } from './code_view.js';
import { createListView } from './list_view.js';
import { toHtml } from './parser.js';
import { patchAfter, patchNode } from './patch.js';
import { createReferences } from './references.js';
import { fragmentOf, fragmentsOf } from './sanitise.js';
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

  // `parts`: some that follow each other, together no larger than the splitter's window.
  function add(parts) {
    const sources = parts.filter((part) => part.source && part.type !== 'piece');
    const tracked = sources.map((part) => references.track((known) => finishedHtml(part, known)));
    const fragments = fragmentsOf(tracked.map(({ result }) => result));
    const made = new Map(sources.map((part, at) => [part, { fragment: fragments[at], missing: tracked[at].missing }]));
    for (const part of parts) addOne(part, made.get(part));
    references.resolve();
  }

  function addOne(part, made) {
    const put = (parent, anchor, select) => place({ parent, anchor, select, part, made });
    if (part.type === 'block') sections.add((parent, anchor) => put(parent, anchor, (fragment) => fragment.childNodes));
    else if (part.type === 'close') close();
    else if (part.type in VIEWS) view = VIEWS[part.type](part, sections);
    else view.add(part, put);
  }

  function close() {
    view.close();
    view = null;
  }

  // Puts a part's nodes after `anchor`. `select` picks them from what it was rendered as. Returns the last one. If a
  // definition comes later that they refer to, they are changed in place.
  function place({ parent, anchor, select, part, made }) {
    const placed = patchAfter(parent, anchor, select(made.fragment));
    references.wait(made.missing, function again() {
      const { result, missing } = references.track((known) => fragmentOf(finishedHtml(part, known)));
      Array.from(select(result)).forEach((node, at) => { placed[at] = patchNode(parent, placed[at], node); });
      references.wait(missing, again);
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
    const nodes = Array.from(fragmentOf(htmlOf(presentable(rest.source), env)).childNodes);
    if (view) view.showOpen(view.isSame(nodes[0]) ? nodes.shift() : null, rest);
    sections.showOpen(nodes);
  }

  function finishedHtml({ source, isContinued }, known) {
    return htmlOf(source, { references: known, isWhole: true, isContinued });
  }

  function htmlOf(source, env) {
    const html = toHtml(source, env);
    if (html.includes(PENDING)) onPending();
    return html;
  }

  return { add, showOpen };
}
