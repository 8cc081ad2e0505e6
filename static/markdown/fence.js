// A fenced code block that grows: takes its lines, and gives its code in pieces. Pure.

import { PIECE_SIZE, firstPiece, wholeCharacters } from './code.js';
import { languageOf } from './parser.js';

// A line may be longer than any bound, and is taken in parts of this size.
const MAX_LINE = 16384;

export function createFence(opening, info) {
  const [, indent, marker] = /^( {0,3})(`{3,}|~{3,})/.exec(opening);
  const closing = new RegExp(`^ {0,3}${marker[0]}{${marker.length},}[ \\t]*$`);
  const mayClose = new RegExp(`^ {0,3}${marker[0]}*[ \\t]*$`);
  let code = '';
  let isClosed = false;
  let isMidLine = false;

  function take(line, ending) {
    code += (isMidLine ? line : unindented(line, indent.length)) + ending;
    isMidLine = ending === '';
  }

  // Takes what is certain, up to about a piece. Returns where it stopped.
  function read(text, from, isWhole) {
    let at = from;
    while (!isClosed && code.length <= PIECE_SIZE) {
      const end = text.indexOf('\n', at);
      const line = text.slice(at, end < 0 ? text.length : end);
      if (end < 0 && !isWhole) return at + takeLongLine(line);
      if (!isMidLine && closing.test(line)) isClosed = true;
      else if (end >= 0) take(line, '\n');
      // The parser has no such line either.
      else if (/[^ \t]/.test(line)) take(line, '');
      at = end < 0 ? text.length : end + 1;
      if (at >= text.length) break;
    }
    if (isWhole && at >= text.length) isClosed = true;
    return at;
  }

  function takeLongLine(line) {
    if (line.length < MAX_LINE) return 0;
    const size = wholeCharacters(line);
    take(line.slice(0, size), '');
    return size;
  }

  // The pieces that are complete; after the end all that is left.
  function takePieces() {
    const found = [];
    while (code.length > PIECE_SIZE || (isClosed && code)) {
      const size = code.length > PIECE_SIZE ? firstPiece(code) : code.length;
      found.push(code.slice(0, size));
      code = code.slice(size);
    }
    return found;
  }

  // What isn't in a piece yet: whole lines, and the start of the next, unless that may be the end of the block.
  function open(text, at) {
    const line = text.slice(at);
    const isShown = isMidLine || !mayClose.test(line);
    return { lines: code, line: isShown ? unindented(line, isMidLine ? 0 : indent.length) : '' };
  }

  return { read, takePieces, open, language: languageOf(info), get isClosed() { return isClosed; } };
}

// The line without the indentation of its fence. Of a tab, only a part may belong to it.
function unindented(line, indent) {
  let width = 0;
  let at = 0;
  while (at < line.length && width < indent && (line[at] === ' ' || line[at] === '\t')) {
    width += line[at] === '\t' ? 4 - (width % 4) : 1;
    at += 1;
  }
  return ' '.repeat(Math.max(0, width - indent)) + line.slice(at);
}
