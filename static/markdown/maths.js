// Mathematics for the parser: \(…\) and $…$ in a line, \[…\] and $$…$$ as displays. Pure.

const BLOCKS = [{ open: '$$', close: '$$' }, { open: '\\[', close: '\\]' }];
const INLINES = [
  { open: '$$', close: '$$', display: true },
  { open: '\\[', close: '\\]', display: true },
  { open: '\\(', close: '\\)', display: false },
];
// A block that isn't closed by then is text. This bounds how far one is looked for.
const MAX_LINES = 100;
const MAX_CHARACTERS = 3000;
const MAX_DOLLARS = 500;

export function maths(parser) {
  const interrupts = { alt: ['paragraph', 'reference', 'blockquote', 'list'] };
  parser.block.ruler.before('fence', 'math_block', mathBlock, interrupts);
  parser.inline.ruler.before('escape', 'math', mathInline);
}

function mathBlock(state, startLine, endLine, silent) {
  const found = findBlock(state, startLine, endLine);
  if (!found) return false;
  if (silent) return true;
  state.line = found.end;
  const token = state.push(found.isClosed ? 'math_block' : 'unclosed_math', '', 0);
  token.content = state.getLines(startLine, found.end, state.blkIndent, false).trim();
  token.map = [startLine, found.end];
  return true;
}

// Returns the line after the block's last one. A block that reaches the end of a text that still grows may yet be
// closed, so nothing is decided about it. Blank lines are not allowed in TeX's displays.
function findBlock(state, startLine, endLine) {
  if (state.sCount[startLine] - state.blkIndent >= 4) return null;
  const first = lineAt(state, startLine);
  const kind = BLOCKS.find(({ open }) => first.startsWith(open));
  if (!kind) return null;
  let size = first.length;
  let rest = first.slice(kind.open.length);
  for (let line = startLine + 1; ; line += 1) {
    const at = rest.indexOf(kind.close);
    if (at >= 0) return at === rest.trimEnd().length - kind.close.length ? { end: line, isClosed: true } : null;
    if (line >= endLine) return canGrow(state, endLine) ? { end: line, isClosed: false } : null;
    if (state.isEmpty(line) || state.sCount[line] < state.blkIndent) return null;
    rest = lineAt(state, line);
    size += rest.length;
    if (line - startLine > MAX_LINES || size > MAX_CHARACTERS) return null;
  }
}

function canGrow(state, endLine) {
  return !state.env.isWhole && endLine >= state.bMarks.length - 1;
}

function lineAt(state, line) {
  return state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]);
}

function mathInline(state, silent) {
  const { src, pos, posMax } = state;
  const character = src[pos];
  if (character !== '$' && character !== '\\') return false;
  const kind = INLINES.find(({ open }) => src.startsWith(open, pos));
  const found = kind ? findDelimited(state, kind) : findDollars(state);
  if (!found || found.end > posMax) return false;
  if (!silent) {
    const token = state.push(found.type, '', 0);
    token.content = src.slice(pos, found.end);
    token.meta = { display: Boolean(kind && kind.display) };
  }
  state.pos = found.end;
  return true;
}

function findDelimited({ src, pos, posMax, env }, { open, close }) {
  const from = pos + open.length;
  const at = src.indexOf(close, from);
  if (at >= 0 && at + close.length <= posMax) {
    return src.slice(from, at).trim() ? { type: 'math_inline', end: at + close.length } : null;
  }
  // While it is being written it is shown as it is, and not read as Markdown.
  return env.isTail && posMax - pos <= MAX_DOLLARS ? { type: 'text', end: posMax } : null;
}

// A price isn't mathematics: the first dollar has no letter or digit before it, the last one none after it, and neither
// has a space inside.
function findDollars({ src, pos, posMax }) {
  if (src[pos] !== '$' || /[\p{L}\p{N}$\\]/u.test(src[pos - 1] || '') || /[\s$]/.test(src[pos + 1] || ' ')) return null;
  for (let at = pos + 2; at < Math.min(posMax, pos + MAX_DOLLARS); at += 1) {
    if (src[at] === '\n') return null;
    if (src[at] === '\\') at += 1;
    else if (src[at] === '$') {
      const isClosing = !/\s/.test(src[at - 1]) && !/[\p{L}\p{N}$]/u.test(src[at + 1] || '');
      return isClosing ? { type: 'math_inline', end: at + 1 } : null;
    }
  }
  return null;
}

// { tex, display } of a formula's source, delimiters included.
export function texOf(source) {
  const isDollars = source.startsWith('$') && !source.startsWith('$$');
  const size = isDollars ? 1 : 2;
  return { tex: source.slice(size, -size), display: !isDollars && !source.startsWith('\\(') };
}
