// The top-level blocks of a source, with their places in it. Pure.

import { isLoose, parseBlocks } from './parser.js';

const TYPES = { bullet_list: 'list', ordered_list: 'list' };

// Each block: { type, source, start, end, lines }, the offsets in the source; a list's: { tag, first, items, isLoose };
// a fence's: { info }. `isWhole`: nothing follows the source.
export function blocksOf(source, isWhole) {
  const tokens = parseBlocks(source, { references: {}, isWhole });
  const lines = lineStarts(source);
  const blocks = [];
  tokens.forEach((token, index) => {
    if (token.level !== 0 || token.nesting < 0 || !token.map) return;
    if (token.type === 'inline') return;
    const type = token.type.replace('_open', '');
    const block = { type: TYPES[type] || type, ...placeOf(token, source, lines), info: token.info, tokens };
    if (block.type === 'list') Object.assign(block, listOf(tokens, index, source, lines));
    blocks.push(block);
  });
  return blocks;
}

function listOf(tokens, from, source, lines) {
  const items = tokens
    .slice(from, closeOf(tokens, from))
    .filter((token) => token.type === 'list_item_open' && token.level === tokens[from].level + 1)
    .map((token) => placeOf(token, source, lines));
  const first = tokens[from].attrGet('start');
  return { tag: tokens[from].tag, first, items, isLoose: isLoose(tokens, from) };
}

function closeOf(tokens, from) {
  const { level } = tokens[from];
  return tokens.findIndex((token, index) => index > from && token.level === level && token.nesting < 0);
}

function placeOf({ map }, source, lines) {
  const [start, end] = map.map((line) => lines[Math.min(line, lines.length - 1)]);
  const text = source.slice(start, end);
  return { start, end, source: text, get lines() { return text.split('\n'); } };
}

// The offset of each line, and the end of the source.
function lineStarts(source) {
  const starts = [0];
  for (let at = source.indexOf('\n'); at >= 0; at = source.indexOf('\n', at + 1)) starts.push(at + 1);
  if (starts.at(-1) !== source.length) starts.push(source.length);
  return starts;
}
