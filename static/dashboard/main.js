// The dashboard: events in, one rendering for each animation frame out.
import { BASE } from '../base.js';
import { addChart } from './chart.js';
import { bytes, count, duration, rate, uptime } from './format.js';
import { createSession } from '../page/session.js';
import { START, applyEvent } from './state.js';

const EVENTS = `${BASE}dashboard/events`;
const RECONNECT_MS = 2000;
const session = createSession(document.querySelector('#sign-in'), document.querySelector('#session'), 'admin');
const SILENCE_MS = 8000; // Figures come every second; EventSource notices a dead link only after minutes.
const MINUTE_S = 59;
const CALM_MS = 10000; // Between two drawings of the charts, for people who asked for less motion.
const calm = matchMedia('(prefers-reduced-motion: reduce)');
const TILES = [
  ['Open streams', ({ point }) => count(point.streams)],
  ['Running', ({ point }) => count(point.running)],
  ['Queued', ({ point }) => count(point.queued)],
  ['Tokens per second', ({ point }) => rate(point.tokens_per_s)],
  ['Outputs per second', ({ point }) => rate(point.outputs_per_s)],
  ['Time to first token, median', ({ point }) => duration(point.time_to_first_token?.p50)],
  ['Between tokens, median', ({ point }) => duration(point.inter_token_latency?.p50)],
  ['Log', ({ log }) => `${bytes(log.bytes)} of ${bytes(log.max_bytes)}`],
];
const COUNTS = [
  ['Generations started', 'started'],
  ['Done', 'done'],
  ['Cancelled', 'cancelled'],
  ['Failed', 'failed'],
  ['Tokens', 'tokens'],
  ['Streams resumed', 'resumes'],
  ['Gaps healed', 'gaps_healed'],
  ['Taken over from another engine', 'taken_over'],
];

function percentiles(name) {
  return ['p50', 'p90', 'p99'].map((share) => ({ name: share, read: (point) => point[name]?.[share] ?? null }));
}

function gauge(name, field) {
  return { name, read: (point) => point[field] };
}

const charts = document.querySelector('#charts');
const drawings = [
  addChart(charts, 'Tokens per second', [gauge('tokens', 'tokens_per_s')], rate),
  addChart(charts, 'Load', [gauge('streams', 'streams'), gauge('running', 'running'), gauge('queued', 'queued')], count),
  addChart(charts, 'Time to first token', percentiles('time_to_first_token'), duration),
  addChart(charts, 'Time between tokens', percentiles('inter_token_latency'), duration),
];

let state = START;
let scheduled = false;
let drawnAt = -Infinity;

function rows(body, texts) {
  body.replaceChildren(...texts.map(([first, ...rest]) => {
    const row = document.createElement('tr');
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = first;
    row.append(head, ...rest.map((text) => Object.assign(document.createElement('td'), { textContent: text })));
    return row;
  }));
}

const tiles = TILES.map(([name]) => {
  const tile = document.createElement('div');
  const value = document.createElement('dd');
  tile.append(Object.assign(document.createElement('dt'), { textContent: name }), value);
  document.querySelector('#tiles').append(tile);
  return value;
});

function render(now) {
  scheduled = false;
  const { shown, points, link, message } = state;
  document.querySelector('#dashboard').dataset.link = link;
  const status = document.querySelector('#link');
  // A status that is written again is read out again.
  if (status.textContent !== message) status.textContent = message;
  const isDue = !calm.matches || now - drawnAt >= CALM_MS;
  if (points.length) {
    if (isDue) drawnAt = now;
    for (const draw of drawings) draw(points, isDue);
  }
  if (!shown) return;
  TILES.forEach(([, text], at) => { tiles[at].textContent = text(shown); });
  const engines = shown.engines.map((each) => [each.name, each.model, each.state, count(each.running), uptime(each.uptime_s)]);
  rows(document.querySelector('#engines tbody'), engines.length ? engines : [['none', '', '', '', '']]);
  document.querySelector('#window').textContent = shown.window_s > MINUTE_S ? 'Last minute' : `Last ${Math.round(shown.window_s)} s`;
  rows(document.querySelector('#counts tbody'),
    COUNTS.map(([name, field]) => [name, count(shown.recent[field]), count(shown.totals[field])]));
}

function receive(type, data) {
  state = applyEvent(state, type, data);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(render);
  }
}

function connect() {
  const source = new EventSource(EVENTS);
  let watchdog = 0;
  const lose = () => {
    clearTimeout(watchdog);
    source.close();
    receive('lost', null);
    setTimeout(begin, RECONNECT_MS * (1 + Math.random()));
  };
  const watch = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lose, SILENCE_MS);
  };
  for (const type of ['history', 'message', 'away', 'busy']) {
    source.addEventListener(type, (event) => {
      watch();
      receive(type, JSON.parse(event.data));
    });
  }
  source.addEventListener('error', lose);
  watch();
}

// EventSource does not say that it was refused because nobody is signed in.
async function begin() {
  await session.begin();
  connect();
}

begin();
