// Code blocks as HTML: a head with the language and a Copy button, and the code in pieces. Pure: no DOM.

import highlighter from '../vendor/highlight.js';
import { escapeHtml } from './escape.js';

// Highlighting takes about 1 ms per kilobyte, and can't be continued: so code is highlighted in pieces of this size.
export const PIECE_SIZE = 8192;
const MIN_PIECE = PIECE_SIZE / 4;
const MAX_LABEL = 40;
// Longer lines are data, and thousands of elements in one line are slow to lay out.
const LONG_LINE = /[^\n]{1000}/;

export function codeBlock(code, language) {
  const body = pieces(code).map((piece) => codePiece(piece, language)).join('');
  return `<div class="code" dir="ltr"><div class="code-head"><span class="language">${labelOf(language)}</span>`
    + '<button type="button" class="copy" aria-live="polite">Copy</button></div>'
    + `<pre tabindex="0"><code>${body}</code></pre></div>`;
}

export function codePiece(piece, language) {
  return `<span class="piece">${highlight(piece, language)}</span>`;
}

export function highlight(code, language) {
  const name = language.toLowerCase();
  if (!highlighter.getLanguage(name) || LONG_LINE.test(code)) return escapeHtml(code);
  return highlighter.highlight(code, { language: name, ignoreIllegals: true }).value;
}

function labelOf(language) {
  return escapeHtml(Array.from(language).slice(0, MAX_LABEL).join(''));
}

export function pieces(code) {
  const found = [];
  let rest = code;
  while (rest.length > PIECE_SIZE) {
    const size = firstPiece(rest);
    found.push(rest.slice(0, size));
    rest = rest.slice(size);
  }
  return rest ? [...found, rest] : found;
}

// The size of the first piece of code that is longer than one. Only its first PIECE_SIZE characters matter, so the
// pieces of code that is still being written are those of the whole. Prefers to cut where nothing is likely to be open:
// before a line that isn't indented, after an empty one.
export function firstPiece(code) {
  const head = code.slice(0, PIECE_SIZE);
  const gap = Array.from(head.matchAll(/\n[ \t]*\n(?=[^\s})\]])/g)).pop();
  if (gap && gap.index >= MIN_PIECE) return gap.index + gap[0].length;
  const line = head.lastIndexOf('\n') + 1;
  return line >= MIN_PIECE ? line : wholeCharacters(head);
}

// The text's length without half a surrogate pair at its end.
export function wholeCharacters(text) {
  return /[\uD800-\uDBFF]$/.test(text) ? text.length - 1 : text.length;
}
