// A line chart of the last five minutes in SVG, with its newest values in words and all of them as a table.
import { CHART_S } from './state.js';
import { clock } from './format.js';

const WIDTH = 300;
const HEIGHT = 80;
const GAP_S = 5; // A longer time without a point shows as a gap.
const ROW_S = 15;
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes = {}, parent = null) {
  const made = name in { svg: 1, path: 1 } ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

function path(points, read, end, top) {
  let last = null;
  const steps = [];
  for (const point of points) {
    const value = read(point);
    if (value === null) {
      last = null;
      continue;
    }
    const x = (WIDTH * (point.at - end + CHART_S)) / CHART_S;
    const y = HEIGHT - 2 - ((HEIGHT - 4) * value) / top;
    const isNext = last !== null && point.at - last <= GAP_S;
    // A line without length is a dot, so that a point alone can be seen.
    steps.push(isNext ? `L${x.toFixed(1)} ${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}h0`);
    last = point.at;
  }
  return steps.join('');
}

function fill(body, points, lines, format) {
  const rows = new Map(points.map((point) => [Math.floor(point.at / ROW_S), point]));
  body.replaceChildren(...[...rows.values()].reverse().map((point) => {
    const row = element('tr');
    element('th', { scope: 'row' }, row).textContent = clock(point.at);
    for (const line of lines) element('td', {}, row).textContent = format(line.read(point));
    return row;
  }));
}

// Adds the chart to `parent`. `lines`: [{ name, read(point) → number or null }]. Returns a function that shows
// points, without drawing them anew unless `isDue`.
export function addChart(parent, title, lines, format) {
  const figure = element('figure', { class: 'chart' }, parent);
  const heading = element('figcaption', {}, figure);
  element('h3', {}, heading).textContent = title;
  const top = element('span', { class: 'top' }, heading);
  const svg = element('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' }, figure);
  const paths = lines.map((_, at) => element('path', { class: `line line-${at}` }, svg));
  const legend = element('ul', { class: 'legend' }, figure);
  const values = lines.map((line, at) => {
    const item = element('li', { class: `key key-${at}` }, legend);
    item.append(`${line.name} `);
    return element('b', {}, item);
  });
  const details = element('details', {}, figure);
  element('summary', {}, details).textContent = 'As a table';
  const table = element('table', { 'aria-label': title }, details);
  const head = element('tr', {}, element('thead', {}, table));
  for (const name of ['Time', ...lines.map((line) => line.name)]) element('th', { scope: 'col' }, head).textContent = name;
  const body = element('tbody', {}, table);
  let drawn = [];
  details.addEventListener('toggle', () => fill(body, drawn, lines, format));

  return (points, isDue) => {
    drawn = points;
    const newest = points[points.length - 1];
    const highest = Math.max(0, ...points.flatMap((point) => lines.map((line) => line.read(point) ?? 0)));
    lines.forEach((line, at) => {
      if (isDue) paths[at].setAttribute('d', path(points, line.read, newest.at, highest || 1));
      values[at].textContent = format(line.read(newest));
    });
    if (isDue) top.textContent = highest ? `up to ${format(highest)}` : '';
    const words = lines.map((line) => `${line.name} ${format(line.read(newest))}`).join(', ');
    svg.setAttribute('aria-label', `${title}: now ${words}; highest of the last five minutes ${format(highest)}`);
    if (details.open) fill(body, points, lines, format);
  };
}
