// How text that is still being written is shown: what its author has most likely begun is treated as complete. Only for
// display; what is finished is parsed as it is. Pure.

// A marker that has been open for longer than this is more likely to be plain text.
const MAX_OPEN = 200;
const MARKERS_ALONE = /^[ \t]*(?:[-+*=_>#|:]+|\d{1,9}[.)]?|`{1,2}|~{1,2})[ \t]*$/;
const FENCE_OPENING = /^((?:[ \t]|>|[-+*][ \t]|\d{1,9}[.)][ \t])*(?:`{3,}|~{3,}))[^`]*$/;
const TABLE_LINE = /^ {0,3}\|/;
const DELIMITER_START = /^ {0,3}\|?[ \t:|-]*$/;

// The same text with its last line made presentable.
export function presentable(source) {
  const start = source.lastIndexOf('\n') + 1;
  const line = source.slice(start);
  const table = asTable(source, start, line);
  if (table !== null) return table;
  const fence = FENCE_OPENING.exec(line);
  if (fence) return source.slice(0, start) + fence[1];
  if (MARKERS_ALONE.test(line)) return source.slice(0, start);
  return source.slice(0, start) + line.replace(/[*_~`]+$/, '');
}

// A table's header, before the line that makes it one.
function asTable(source, start, line) {
  const before = source.slice(0, Math.max(0, start - 1));
  const previous = before.slice(before.lastIndexOf('\n') + 1);
  if (TABLE_LINE.test(line) && !TABLE_LINE.test(previous)) {
    return cellsOf(line) > 1 ? `${source}\n${delimiter(line)}` : null;
  }
  if (!TABLE_LINE.test(previous) || !DELIMITER_START.test(line) || cellsOf(previous) < 2) return null;
  const isFirst = !TABLE_LINE.test(before.slice(0, -previous.length).trimEnd().split('\n').pop());
  return isFirst ? `${before}\n${delimiter(previous)}` : null;
}

function delimiter(header) {
  return `|${'-|'.repeat(cellsOf(header))}`;
}

export function cellsOf(header) {
  const cells = header.trim().split(/(?<!\\)\|/);
  return cells.length - (cells[0] === '' ? 1 : 0) - (cells.length > 1 && cells.at(-1) === '' ? 1 : 0);
}

// Inline rules that only apply in the last line of text, `env.isTail`.
export function unfinished(parser) {
  parser.inline.ruler.before('backticks', 'open_code', openCode);
  parser.inline.ruler.before('link', 'open_link', openLink);
  parser.inline.ruler2.after('balance_pairs', 'open_emphasis', openEmphasis);
}

function openCode(state, silent) {
  if (!state.env.isTail || silent || state.src[state.pos] !== '`') return false;
  const rest = state.src.slice(state.pos, state.posMax);
  const marker = /^`+/.exec(rest)[0];
  if (rest.length > MAX_OPEN || hasRun(rest.slice(marker.length), marker.length)) return false;
  state.push('code_inline', 'code', 0).content = rest.slice(marker.length).replace(/^ /, '');
  state.pos = state.posMax;
  return true;
}

function hasRun(text, length) {
  return (text.match(/`+/g) || []).some((run) => run.length === length);
}

// [label, [label](, [label](https://… and the same as an image: only the label is shown.
const OPEN_LINK = /^!?\[((?:[^[\]\n\\]|\\.)*)(?:\](?:\([^()\s]*(?:\s+"[^"]*)?)?)?$/;

function openLink(state, silent) {
  const { src, pos, posMax, env } = state;
  if (!env.isTail || silent || posMax !== src.length || (src[pos] !== '[' && src[pos] !== '!')) return false;
  if (posMax - pos > 2 * MAX_OPEN) return false;
  const found = OPEN_LINK.exec(src.slice(pos));
  if (!found) return false;
  const label = pos + found[0].indexOf('[') + 1;
  state.pos = label;
  state.posMax = label + found[1].length;
  state.md.inline.tokenize(state);
  state.pos = posMax;
  state.posMax = posMax;
  return true;
}

// Closes what is open at the end, the innermost first.
function openEmphasis(state) {
  if (!state.env.isTail) return;
  for (const opener of openersAtEnd(state).reverse()) {
    const token = new state.Token('text', '', 0);
    state.tokens.push(token);
    opener.end = state.delimiters.length;
    state.delimiters.push({ ...opener, token: state.tokens.length - 1, end: -1, open: false, close: true });
  }
}

function openersAtEnd({ delimiters, tokens }) {
  const found = [];
  for (let at = 0; at < delimiters.length; at += 1) {
    const delimiter = delimiters[at];
    // What lies within a pair can't reach out of it.
    if (delimiter.end >= 0) at = delimiter.end;
    else if (delimiter.open && sizeAfter(tokens, delimiter.token) <= MAX_OPEN) found.push(delimiter);
  }
  return found;
}

function sizeAfter(tokens, index) {
  return tokens.slice(index + 1).reduce((size, token) => size + token.content.length, 0);
}
