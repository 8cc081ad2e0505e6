// The Markdown parser, configured: source in, block tokens or HTML out. Pure: no DOM.
//
// An environment, `env`, belongs to one parse: { references, isWhole, isUnfinished, isContinued }.
// isWhole: nothing follows the source. isUnfinished: its last line is still being written.

import MarkdownIt from '../vendor/markdown-it.js';
import { codeBlock } from './code.js';
import { maths } from './maths.js';
import { formula } from './typeset.js';
import { unfinished } from './unfinished.js';

// Before a source that continues a paragraph, so that its first characters aren't read as a list or a heading.
export const CONTINUED = '\f';

export const TABLE_WRAPPER = '<div class="table" dir="auto" tabindex="0">';

const ALLOWED_LINK = /^(?:https?:\/\/|mailto:)[^\s]/i;
// markdown-it drops what is nested deeper than it allows. Deeper markers are text here.
const MAX_LEVEL = 24;
const LISTS = new Set(['bullet_list_open', 'ordered_list_open']);
const PROBE = { isProbe: true };

const parser = new MarkdownIt({ html: false, linkify: true });
parser.validateLink = (url) => ALLOWED_LINK.test(url.trim());
parser.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
// Raw HTML is shown as it was written, and so are entities.
parser.disable(['entity', 'html_inline', 'html_block', 'strip_references']);
parser.use(maths).use(unfinished);

// The tokens of the source's blocks, as markdown-it's block parser makes them; `map` holds their lines.
export function parseBlocks(source, env) {
  const tokens = [];
  parser.block.parse(source, parser, env, tokens);
  return tokens;
}

export function toHtml(source, env) {
  return parser.render(source, env);
}

function wrapBlockRule(name, wrapper) {
  const { fn, alt } = parser.block.ruler.__rules__.find((rule) => rule.name === name);
  parser.block.ruler.at(name, (...given) => wrapper(fn, ...given), { alt });
  return fn;
}

function unlessDeep(rule, state, ...rest) {
  return state.level < MAX_LEVEL && rule(state, ...rest);
}

// A definition is shown too, as models list their sources in this way.
function withSource(rule, state, startLine, endLine, silent) {
  if (!rule(state, startLine, endLine, silent)) return false;
  if (!silent) state.tokens.at(-1).content = state.getLines(startLine, state.line, state.blkIndent, false);
  return true;
}

// markdown-it would take back a list or a code block whose first line turns out to be a table's header. Elsewhere, and
// here, what has begun stays.
function unlessBegun(rule, state, startLine, endLine, silent) {
  const isBegun = (begin) => begin(state, startLine, endLine, true);
  return rule(state, startLine, endLine, true) && !beginners(state).some(isBegun)
    && (silent || rule(state, startLine, endLine, false));
}

const beginners = ({ parentType, md }) => [
  ...md.block.ruler.getRules('blockquote'), ...(parentType === 'paragraph' ? [] : [define]),
];

const define = wrapBlockRule('reference', withSource);
wrapBlockRule('blockquote', unlessDeep);
wrapBlockRule('list', unlessDeep);
wrapBlockRule('table', unlessBegun);

function paragraphOf({ content, level }, Token) {
  const tokens = [new Token('paragraph_open', 'p', 1), new Token('inline', '', 0), new Token('paragraph_close', 'p', -1)];
  tokens[1].content = content.trim();
  tokens[1].children = [];
  for (const token of tokens) token.level = level;
  return tokens;
}

// A list's looseness only shows in a class of the list, and its items have paragraphs in either case. So an item's nodes
// stay the same when a later blank line makes the list loose. markdown-it doesn't say whether a list is loose, it hides
// the paragraphs of a tight one: a probe in each item shows which it did.
class State extends parser.block.State {
  push(type, tag, nesting) {
    if (type === 'list_item_close') this.pushProbe();
    return super.push(type, tag, nesting);
  }

  pushProbe() {
    for (const type of ['paragraph_open', 'text', 'paragraph_close']) {
      const token = super.push(type, '', 0);
      token.meta = PROBE;
    }
  }
}
parser.block.State = State;

export function isProbe(token) {
  return token.meta === PROBE;
}

// `from`: the index of the list's first token.
export function isLoose(tokens, from) {
  const level = tokens[from].level + 2;
  return !tokens.slice(from).find((token) => isProbe(token) && token.level === level).hidden;
}

parser.core.ruler.after('block', 'shape', (state) => {
  const { tokens, Token, env } = state;
  tokens.forEach((token, index) => {
    if (LISTS.has(token.type) && isLoose(tokens, index)) token.attrJoin('class', 'loose');
  });
  state.tokens = tokens
    .filter((token) => !isProbe(token))
    .flatMap((token) => (token.type === 'reference_definition' ? paragraphOf(token, Token) : [token]));
  for (const token of state.tokens) {
    token.hidden = false;
    if (token.level === 0 && token.nesting === 1) token.attrSet('dir', 'auto');
    alignByClass(token);
  }
  if (env.isContinued) removeMark(state.tokens);
});

function removeMark(tokens) {
  const marked = tokens.find((token) => token.type === 'inline' && token.content.startsWith(CONTINUED));
  if (marked) marked.content = marked.content.replace(/^\f[ \t\n]*/, '');
}

// Inline styles are against the page's policy.
function alignByClass(token) {
  const style = token.attrGet('style');
  if (!style) return;
  token.attrs = [['class', `align-${style.replace('text-align:', '')}`]];
}

parser.core.ruler.at('inline', ({ tokens, env, md }) => {
  const last = env.isUnfinished ? tokens.findLastIndex((token) => token.nesting >= 0 && !token.hidden) : -1;
  tokens.forEach((token, index) => {
    if (token.type !== 'inline') return;
    env.isTail = index === last;
    md.inline.parse(token.content, md, env, token.children);
  });
  env.isTail = false;
});

// Images would be loaded from elsewhere, and tell others about the conversation. They are links here.
parser.core.ruler.after('inline', 'image_links', ({ tokens, Token }) => {
  for (const token of tokens) {
    if (token.type === 'inline' && token.children.some((child) => child.type === 'image')) {
      token.children = withImagesAsLinks(token.children, Token);
    }
  }
});

function withImagesAsLinks(children, Token) {
  let depth = 0;
  return children.flatMap((child) => {
    if (child.type === 'link_open') depth += 1;
    if (child.type === 'link_close') depth -= 1;
    if (child.type !== 'image') return [child];
    const text = new Token('text', '', 0);
    text.content = parser.renderer.renderInlineAsText(child.children, parser.options, {}) || child.attrGet('src');
    if (depth > 0) return [text];
    const open = new Token('link_open', 'a', 1);
    open.attrs = [['href', child.attrGet('src')], ...(child.attrGet('title') ? [['title', child.attrGet('title')]] : [])];
    return [open, text, new Token('link_close', 'a', -1)];
  });
}

// Keeps the spaces at the start of a line, which markdown-it drops.
parser.inline.ruler.at('newline', (state, silent) => {
  if (state.src[state.pos] !== '\n') return false;
  const spaces = / *$/.exec(state.pending)[0].length;
  if (!silent) {
    state.pending = state.pending.slice(0, state.pending.length - spaces);
    state.push(spaces > 1 ? 'hardbreak' : 'softbreak', 'br', 0);
  }
  state.pos += 1;
  return true;
});

const { rules } = parser.renderer;
const { escapeHtml } = parser.utils;

parser.renderer.renderToken = (tokens, index) => {
  const token = tokens[index];
  if (token.hidden) return '';
  return token.nesting === -1 ? `</${token.tag}>` : `<${token.tag}${parser.renderer.renderAttrs(token)}>`;
};
rules.softbreak = () => '\n';
rules.hardbreak = () => '<br>';
rules.link_open = (tokens, index) => {
  tokens[index].attrSet('rel', 'noopener noreferrer nofollow');
  tokens[index].attrSet('target', '_blank');
  return parser.renderer.renderToken(tokens, index);
};
rules.table_open = () => `${TABLE_WRAPPER}<table>`;
rules.table_close = () => '</table></div>';
rules.fence = (tokens, index) => codeBlock(tokens[index].content, languageOf(tokens[index].info));
rules.code_block = (tokens, index) => codeBlock(tokens[index].content, '');
rules.math_inline = (tokens, index) => formula(tokens[index].content);
rules.math_block = (tokens, index) => `<div class="display">${formula(tokens[index].content)}</div>`;
rules.unclosed_math = (tokens, index) => `<p>${escapeHtml(tokens[index].content)}</p>`;
export function languageOf(info) {
  return parser.utils.unescapeAll(info).trim().split(/\s+/)[0];
}
