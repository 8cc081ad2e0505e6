// Shows Markdown that is still being written.
//
//   const view = createMarkdownView(element);
//   view.update(text);   the whole text so far; at most once per animation frame
//   view.finish();       nothing follows; resolves when all is shown, formulas included
//
// What is finished is rendered once, and its nodes stay. What it costs to show more doesn't depend on how much is there.
// The page needs markdown.css.

import { createBuilder } from './markdown/builder.js';
import { handleCopying } from './markdown/copying.js';
import { fragmentOf } from './markdown/sanitise.js';
import { createSplitter } from './markdown/splitter.js';
import { formula, loadTypesetting } from './markdown/typeset.js';

// How long to work before the browser gets a turn.
const SLICE_MS = 8;
// The open part is rendered again after this many times of what it took the last time.
const REST_FACTOR = 3;
// While KaTeX can't be loaded, formulas stay as they are written.
const LOAD_AGAIN_MS = 10_000;

export function createMarkdownView(element) {
  element.classList.add('markdown');
  handleCopying(element);

  let received;
  let text;
  let isFinished;
  let splitter;
  let builder;
  let timer = 0;
  let restUntil;
  let resolveFinished;
  // Formulas: 'none' waits, KaTeX is 'loading', or those that wait can be typeset 'now'.
  let typesetting;
  let typesetAgainAt = 0;
  restart();

  function restart() {
    element.replaceChildren();
    splitter = createSplitter();
    builder = createBuilder(element, typesetLater);
    received = '';
    text = '';
    isFinished = false;
    restUntil = 0;
    resolveFinished = () => {};
    typesetting = 'none';
  }

  function update(newText) {
    if (newText === received) return;
    if (isFinished || !newText.startsWith(received)) restart();
    text += added(received, newText);
    received = newText;
    splitter.set(text, false);
    work();
  }

  function finish() {
    isFinished = true;
    splitter.set(received.endsWith('\r') ? `${text}\n` : text, true);
    const finished = new Promise((resolve) => { resolveFinished = resolve; });
    work();
    return finished;
  }

  function work() {
    clearTimeout(timer);
    timer = 0;
    try {
      workUntil(performance.now() + SLICE_MS);
    } catch (error) {
      showPlain(error);
    }
    if (splitter.isDone && !timer && typesetting === 'none') resolveFinished();
  }

  function workUntil(end) {
    for (let parts = splitter.next(); parts; parts = splitter.next()) {
      builder.add(parts);
      if (performance.now() > end) return workLater(0);
    }
    showOpen();
    return typesetting === 'now' ? typeset(end) : null;
  }

  function workLater(delay) {
    timer = setTimeout(work, delay);
  }

  function showOpen() {
    const start = performance.now();
    if (start < restUntil && !splitter.isDone) return workLater(restUntil - start);
    builder.showOpen(splitter.open);
    restUntil = performance.now() + REST_FACTOR * (performance.now() - start);
    return null;
  }

  async function typesetLater() {
    if (typesetting === 'loading' || performance.now() < typesetAgainAt) return;
    typesetting = 'loading';
    const isLoaded = await loadTypesetting();
    if (!isLoaded) typesetAgainAt = performance.now() + LOAD_AGAIN_MS;
    typesetting = isLoaded ? 'now' : 'none';
    work();
  }

  function typeset(end) {
    for (const node of element.querySelectorAll('.formula.pending')) {
      node.replaceWith(fragmentOf(formula(node.textContent)));
      if (performance.now() > end) return workLater(0);
    }
    typesetting = 'none';
    return null;
  }

  // A mistake of ours must not hide the text.
  function showPlain(error) {
    reportError(error);
    element.textContent = received;
    splitter = { set() {}, next: () => null, isDone: true, open: null };
    builder = { add() {}, showOpen() { element.textContent = received; } };
    typesetting = 'none';
  }

  return { update, finish };
}

// What was added to the text, with plain line breaks. A last \r waits for the \n that may follow.
function added(before, text) {
  const start = before.endsWith('\r') ? before.length - 1 : before.length;
  const end = text.endsWith('\r') ? text.length - 1 : text.length;
  return text.slice(start, end).replace(/\r\n?/g, '\n').replaceAll('\0', '\uFFFD');
}
