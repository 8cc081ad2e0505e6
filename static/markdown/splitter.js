// Splits a text that grows into finished parts and an open rest. Pure: no DOM.
//
// What it relies on: Markdown's block structure is decided line by line. Of the blocks in whole lines, all but the last
// are final, whatever follows; so are all items but the last of a list, and all rows of a table. (The exceptions, see
// `settledCount`, wait for one more block.) Only a window after the last finished part is parsed, so a step costs
// the same whatever the size of the text.
//
// Each decision depends on the text alone, not on the sizes in which it arrived: hence the parts of a text are the same
// in whatever pieces it came.
//
// Parts, in order:
//   { type: 'block', source, isContinued }                    one block
//   { type: 'list', tag, start }, then 'item's, 'more's and at most one 'loose', then 'close'
//   { type: 'item', source }, { type: 'more', source }        an item; more content of the last item
//   { type: 'table' }, then { type: 'header', source }, { type: 'rows', source }, and 'close'; in a long table another
//   'header', with the same source, and 'rows'
//   { type: 'code', language }, then { type: 'piece', source } and 'close'

import { giantCut } from './cuts.js';
import { createFence } from './fence.js';
import { blocksOf } from './outline.js';
import { CONTINUED } from './parser.js';
import { cellsOf } from './unfinished.js';

// A paragraph longer than the first is cut, as is any other part longer than the second.
const WINDOWS = [4096, 8192];
const MAX_ROWS = 100;

export function createSplitter(windows = WINDOWS) {
  let text = '';
  let isWhole = false;
  let at = 0;
  // Goes before the rest of the text for the parser: what a reader of it must know of the text before.
  let context = '';
  let mode = 'blocks';
  let fence = null;
  let isListLoose = false;
  let header = null;
  let rowCount = 0;

  // Returns the next parts, or null if there are none yet.
  function next() {
    if (mode === 'code') return nextCode();
    if (mode === 'blocks' && !context) skipEmptyLines();
    for (const size of windows) {
      const parts = nextIn(size);
      if (parts) return parts;
      if (text.length - at < size) return null;
    }
    throw new Error('a full window has no part');
  }

  // At once, so that where a window begins doesn't depend on when they came.
  function skipEmptyLines() {
    const empty = /(?:[ \t]*\n)*/y;
    empty.lastIndex = at;
    at += empty.exec(text)[0].length;
  }

  function nextIn(size) {
    const isLast = isWhole && text.length - at <= size;
    const window = isLast ? text.slice(at) : wholeLines(size);
    const parts = window || isLast ? read({ window, size, isLast }) : null;
    if (parts || isLast || text.length - at < size) return parts || null;
    return cut(text.slice(at, at + size), size);
  }

  function wholeLines(size) {
    const end = text.lastIndexOf('\n', Math.min(text.length, at + size) - 1) + 1;
    return end > at ? text.slice(at, end) : '';
  }

  const readers = { blocks: readBlocks, list: readList, table: readTable };

  function read(given) {
    return readers[mode](blocksOf(context + given.window, given.isLast), given);
  }

  function readBlocks(blocks, { window, size, isLast }) {
    if (blocks.length === 0) {
      at += window.length;
      return null;
    }
    const container = containers[blocks[0].type];
    if (container) return container(blocks[0]);
    // After a block that needs a larger window, the next one gets the smaller window again: it is cut as it would be if
    // it came alone.
    const most = size === windows[0] ? blocks.length : 1;
    const count = Math.min(most, isLast ? blocks.length : settledCount(blocks));
    const stop = blocks.slice(0, count).findIndex((block) => block.type in containers);
    return take(blocks, stop < 0 ? count : stop);
  }

  function take(blocks, count) {
    if (count === 0) return null;
    const parts = blocks.slice(0, count).map((block) => ({ type: 'block', source: block.source, isContinued: false }));
    if (context) parts[0].isContinued = true;
    consume(blocks[count - 1].end);
    return parts;
  }

  // `end`: an offset in the parsed source, that is after the context.
  function consume(end, newContext = '') {
    at += end - context.length;
    context = newContext;
  }

  const containers = { list: openList, table: openTable, fence: openCode };

  function openList(list) {
    mode = 'list';
    isListLoose = false;
    return [{ type: 'list', tag: list.tag, start: list.first }];
  }

  function readList([list, ...others], { isLast }) {
    const isClosed = isLast || settledCount([list, ...others]) > 0;
    const items = isClosed ? list.items : list.items.slice(0, -1);
    const parts = [];
    if (list.isLoose && !isListLoose) parts.push({ type: 'loose' });
    isListLoose ||= list.isLoose;
    parts.push(...items.map((item, index) => ({ type: context && index === 0 ? 'more' : 'item', source: item.source })));
    if (items.length > 0) consume(items.at(-1).end);
    if (isClosed) parts.push(close());
    return parts.length > 0 ? parts : null;
  }

  function openTable(table) {
    const columns = `|${' |'.repeat(cellsOf(table.lines[0]))}\n${table.lines[1]}\n`;
    consume(table.start + table.lines[0].length + table.lines[1].length + 2, columns);
    at = Math.min(at, text.length);
    mode = 'table';
    rowCount = 0;
    header = { type: 'header', source: `${table.lines[0].replace(CONTINUED, '')}\n${table.lines[1]}\n` };
    return [{ type: 'table' }, header];
  }

  function readTable([table, next], { isLast, window }) {
    const size = table.end - context.length;
    const parts = size > 0 ? rowParts(window.slice(0, size).split(/(?<=\n)/)) : [];
    // Mathematics that isn't closed yet may turn out to be another row.
    const isClosed = isLast || (size < window.length && (!next || next.type !== 'unclosed_math'));
    at += Math.max(0, size);
    if (isClosed) parts.push(close());
    return parts.length > 0 ? parts : null;
  }

  function rowParts(lines) {
    const parts = [];
    for (let next = lines; next.length > 0;) {
      const room = MAX_ROWS - (rowCount % MAX_ROWS);
      if (rowCount > 0 && room === MAX_ROWS) parts.push({ ...header });
      parts.push({ type: 'rows', source: context + next.slice(0, room).join('') });
      rowCount += Math.min(room, next.length);
      next = next.slice(room);
    }
    return parts;
  }

  function openCode(block) {
    const [line] = block.lines;
    fence = createFence(line, block.info);
    consume(Math.min(block.start + line.length + 1, text.length - at + context.length));
    mode = 'code';
    return [{ type: 'code', language: fence.language }];
  }

  function nextCode() {
    const before = at;
    at = fence.read(text, at, isWhole);
    const parts = fence.takePieces().map((source) => ({ type: 'piece', source }));
    if (fence.isClosed) parts.push(close());
    return parts.length > 0 || at > before ? parts : null;
  }

  function close() {
    mode = 'blocks';
    context = '';
    fence = null;
    return { type: 'close' };
  }

  // For a part that fills a window.
  function cut(window, size) {
    const blocks = blocksOf(context + window, false);
    if (size < windows.at(-1) && (mode !== 'blocks' || blocks[0].type !== 'paragraph')) return null;
    if (mode === 'table') return [close()];
    if (mode === 'list' && blocks[0].items.length > 1) return readList(blocks, { isLast: false });
    if (mode === 'blocks' && blocks.length > 1) return readBlocks(blocks.slice(0, -1), { window, size, isLast: true });
    const found = giantCut({ source: context + window, from: context.length, block: blocks[0], isItem: mode === 'list' });
    const source = (context + window).slice(0, found.end);
    const isMore = mode === 'list' && Boolean(context);
    const type = mode === 'blocks' ? 'block' : isMore ? 'more' : 'item';
    const part = { type, source, isContinued: Boolean(context) };
    consume(found.end, found.context);
    return [part];
  }

  return {
    next,
    // What the text has become, and whether nothing follows.
    set(newText, whole) {
      text = newText;
      isWhole = whole;
    },
    get isDone() { return isWhole && at >= text.length && mode === 'blocks'; },
    // What follows the finished parts, as a source to parse.
    get open() {
      return fence
        ? { mode, code: fence.open(text, at) }
        : { mode, source: context + text.slice(at), isContinued: Boolean(context) };
    },
  };
}

// How many of the blocks in whole lines nothing can change any more. The last one can grow. A title on the next line
// may belong to a definition. Before mathematics that isn't closed yet, and that may turn out to be text, a block may
// go on.
function settledCount(blocks) {
  let count = blocks.length - 1;
  if (blocks[count].type === 'unclosed_math') count -= 1;
  if (count > 0 && blocks[count - 1].type === 'reference_definition') count -= 1;
  return Math.max(0, count);
}
