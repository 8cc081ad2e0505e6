// Where a part that is too long is cut, and what has to go before the rest so that it is read as the same thing. Pure.

import { wholeCharacters } from './code.js';
import { CONTINUED } from './parser.js';

const ITEM = /^( {0,3})([-+*]|\d{1,9}[.)])( {1,4}(?=\S))?/;

// `from`: where the text begins in `source`, after its context. Returns { end, context }, `end` in `source`.
export function giantCut({ source, from, block, isItem }) {
  const line = source.lastIndexOf('\n', source.length - 2) + 1;
  const isAtLine = line > from + (source.length - from) / 4;
  const cut = isAtLine ? line : from + inlineCut(source.slice(from));
  if (isItem) return { end: cut, context: itemContext(source, isAtLine) + fenceContext(source, block, isAtLine) };
  return { end: cut, context: contextOf(source, block, isAtLine) };
}

function contextOf(source, block, isAtLine) {
  if (block.type === 'paragraph') return CONTINUED;
  if (isAtLine) return fenceContext(source, block, isAtLine);
  if (block.type === 'blockquote') return `> ${CONTINUED}`;
  return block.type === 'code_block' ? '    ' : CONTINUED;
}

// An empty heading in an item with the same indentation: what follows belongs to the item.
function itemContext(source, isAtLine) {
  const [, indent, marker, spaces = ' '] = ITEM.exec(source);
  const width = indent.length + marker.length + spaces.length;
  return `${indent}${marker}${spaces}#\n${isAtLine ? '' : ' '.repeat(width) + CONTINUED}`;
}

// Reopens the fence that the cut went through.
function fenceContext(source, { tokens }, isAtLine) {
  const last = tokens.findLast((token) => token.map && token.nesting >= 0 && token.type !== 'inline');
  const isOpen = isAtLine && last && last.type === 'fence' && last.map[1] >= source.split('\n').length - 1;
  if (!isOpen) return '';
  return `${source.split('\n')[last.map[0]].replace(ITEM, (found) => ' '.repeat(found.length))}\n`;
}

// After a sentence if there is one in the second half, else after a space, where no bracket, code, formula or emphasis
// seems to be open.
function inlineCut(text) {
  const half = text.length / 2;
  const open = { '*': false, '`': false, '$': false };
  let depth = 0;
  const best = { sentence: 0, space: 0, anySpace: 0 };
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '\\') at += 1;
    else if (character in open) open[character] = !open[character];
    else if (character === '[' || character === '(') depth += 1;
    else if (character === ']' || character === ')') depth = Math.max(0, depth - 1);
    else if (/\s|[。！？、，]/.test(character) && at >= half) {
      best.anySpace = at + 1;
      if (depth > 0 || open['*'] || open['`'] || open.$) continue;
      best.space = at + 1;
      if (/[.!?:;。！？]/.test(text[at - 1]) || /[。！？]/.test(character)) best.sentence = at + 1;
    }
  }
  return Math.min(text.length, best.sentence || best.space || best.anySpace || wholeCharacters(text));
}
