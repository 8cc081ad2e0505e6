// The splitter's parts as the HTML that the page's view makes of them, without a DOM.

import { codeBlock, codePiece } from '../../static/markdown/code.js';
import { toHtml } from '../../static/markdown/parser.js';
import { createSplitter } from '../../static/markdown/splitter.js';

// The parts of a text that arrives in pieces, which end at `cuts`.
export function partsOf(text, cuts, windows) {
  const splitter = createSplitter(windows);
  const parts = [];
  const take = (size, isWhole) => {
    splitter.set(text.slice(0, size), isWhole);
    for (let next = splitter.next(); next; next = splitter.next()) parts.push(...next);
  };
  for (const cut of cuts) take(cut, false);
  take(text.length, false);
  take(text.length, true);
  if (!splitter.isDone) throw new Error('the splitter is not done');
  return parts;
}

// Rows may come in one part or in several, and that a list is loose may be known sooner or later.
export function comparable(parts) {
  const found = [];
  for (const part of parts) {
    if (part.type === 'loose') found.findLast(({ type }) => type === 'list').isLoose = true;
    else if (part.type === 'rows') found.push(...rowsOf(part));
    else found.push({ ...part });
  }
  return found;
}

function rowsOf({ source }) {
  const [, , ...rows] = source.split(/(?<=\n)/);
  return rows.map((row) => ({ type: 'row', row }));
}

export function htmlOf(parts, references) {
  let html = '';
  let open = null;
  const render = (part) => toHtml(part.source, { references, isWhole: true, isContinued: part.isContinued });
  for (const part of parts) {
    if (part.type === 'block') html += render(part);
    else if (part.type === 'close') html += closed(open);
    else if (['list', 'table', 'code'].includes(part.type)) open = { part, inner: '', isLoose: false };
    else if (part.type === 'header') open.header = render(part);
    else if (part.type === 'loose') open.isLoose = true;
    else if (part.type === 'item') open.inner += between(render(part), '<li>', '</li>', true);
    else if (part.type === 'rows') open.inner += between(render(part), '<tbody>', '</tbody>', false);
    else if (part.type === 'piece') open.inner += codePiece(part.source, open.part.language);
    else throw new Error(`no ${part.type} here`);
  }
  return html;
}

function between(html, start, end, isWhole) {
  const [from, to] = [html.indexOf(start), html.lastIndexOf(end)];
  return isWhole ? html.slice(from, to + end.length) : html.slice(from + start.length, to);
}

function closed({ part, inner, isLoose, header }) {
  if (part.type === 'code') return codeBlock('', part.language).replace('</code>', () => `${inner}</code>`);
  if (part.type === 'table') {
    return header.replace('</table>', () => `${inner && `<tbody>${inner}</tbody>`}</table>`);
  }
  const start = part.start === null ? '' : ` start="${part.start}"`;
  return `<${part.tag}${start}${isLoose ? ' class="loose"' : ''} dir="auto">${inner}</${part.tag}>`;
}
