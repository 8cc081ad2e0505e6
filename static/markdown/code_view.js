// A code block that is being written: finished pieces, then an open one. Only a new line is worth highlighting again.

import { codeBlock, codePiece, highlight } from './code.js';
import { adoptAfter, patchAfter, patchRest, removeAfter, setText } from './patch.js';
import { fragmentOf } from './sanitise.js';

export function createCodeView({ language }, sections) {
  const shell = fragmentOf(codeBlock('', language)).childNodes;
  const code = sections.addContainer((parent, anchor) => patchAfter(parent, anchor, shell)[0]).querySelector('code');
  let last = null;
  let shownLines = null;

  function add({ source }) {
    last = patchAfter(code, last, fragmentOf(codePiece(source, language)).childNodes).at(-1);
    shownLines = null;
  }

  function showOpen({ lines, line }) {
    if (!lines && !line) {
      removeAfter(code, last);
      return;
    }
    const piece = adoptAfter(code, last, emptyPiece());
    if (lines !== shownLines) {
      patchRest(piece, null, [...fragmentOf(highlight(lines, language)).childNodes, document.createTextNode('')]);
      shownLines = lines;
    }
    setText(piece.lastChild, line);
  }

  function close() {
    removeAfter(code, last);
  }

  return { add, showOpen, close };
}

function emptyPiece() {
  const piece = document.createElement('span');
  piece.className = 'piece';
  return piece;
}
