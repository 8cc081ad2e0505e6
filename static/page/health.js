// The stream's health: times between tokens as a strip, counts, and a menu of faults to try, so that anyone can see the
// answer go on.

import { BASE } from '../base.js';
import { h, setText } from './dom.js';

const OFFLINE_MS = 5000;
const OTHER_WORKER_TRIES = 20;
const WORKER_ANSWERS_MS = 300;
// Above this, a bar has full height.
const MAX_MS = 500;

// `client`: of everstream-client. Returns { show(run) }, to be called once per frame at most; null: nothing streams.
export function createHealth(element, client) {
  const canvas = element.querySelector('canvas');
  const figures = element.querySelector('dl');
  const menu = element.querySelector('.faults');
  const report = element.querySelector('.report');
  let worker = null;
  let drawn = '';

  const faults = [
    ['Cut the connection', () => client.interrupt()],
    ['Go offline for 5 s', () => client.interrupt(OFFLINE_MS)],
    ['Move to another worker', moveToOtherWorker],
  ];
  addFaults(faults);
  // Only where the service allows it.
  const kills = element.dataset.kills.split(' ').filter(Boolean);
  addFaults(kills.map((what) => [`Kill ${what === 'engine' ? 'the engine' : 'a worker'} (really)`, () => kill(what)]));

  function addFaults(found) {
    for (const [name, run] of found) {
      menu.append(h('button', { type: 'button', class: 'secondary', on: { click: run } }, name));
    }
  }

  // The kernel chooses which worker gets a connection.
  async function moveToOtherWorker() {
    const before = worker;
    for (let tries = 0; tries < OTHER_WORKER_TRIES && worker === before; tries += 1) {
      client.interrupt();
      await new Promise((resolve) => { setTimeout(resolve, WORKER_ANSWERS_MS); });
    }
    setText(report, worker === before ? `It is still worker ${before}` : `Moved from worker ${before} to ${worker}`);
  }

  async function kill(what) {
    const response = await fetch(`${BASE}demo/kill`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ what }),
    }).catch(() => null);
    const body = await response?.json().catch(() => null);
    setText(report, response?.ok ? `Killed ${what === 'engine' ? 'the engine' : 'a worker'}` : body?.error?.message ?? 'The server did not answer');
  }

  function show(run) {
    for (const button of menu.querySelectorAll('button')) button.disabled = run === null;
    if (run === null) return;
    const { recorder: { counts, intervals }, state } = run;
    worker = state.worker;
    const values = {
      Events: counts.events,
      Data: size(counts.bytes),
      'Median gap': intervals.length ? `${median(intervals).toFixed(0)} ms` : '–',
      Reconnects: counts.reconnects,
      'Caught up': counts.caughtUp,
      'Engine restarts': counts.resumes,
      'Dead links': counts.silences,
      'Gaps healed': counts.gaps,
      Worker: worker ?? '–',
    };
    const now = JSON.stringify(values);
    if (now === drawn) return;
    drawn = now;
    figures.replaceChildren(...Object.entries(values).map(([name, value]) => (
      h('div', {}, h('dt', {}, name), h('dd', {}, String(value)))
    )));
    draw(canvas, intervals);
  }

  return { show };
}

// The pure part.

export function median(intervals) {
  const times = intervals.filter((each) => typeof each === 'number').sort((a, b) => a - b);
  return times.length ? times[Math.floor(times.length / 2)] : 0;
}

export function size(bytes) {
  return bytes < 10_000 ? `${bytes} B` : `${(bytes / 1000).toFixed(0)} kB`;
}

// A bar for each time, at a logarithmic scale, and a full one in another colour for each mark.
export function bars(intervals, height) {
  return intervals.map((each) => {
    if (typeof each !== 'number') return { height, kind: each.kind };
    const share = Math.log1p(Math.min(each, MAX_MS)) / Math.log1p(MAX_MS);
    return { height: Math.max(1, Math.round(share * height)), kind: 'token' };
  });
}

const BAR_PX = 3;
const COLOURS = { token: '--accent', cut: '--warn', restart: '--bad' };

// As a canvas takes them: the properties depend on the colour scheme.
function coloursOf(canvas) {
  return Object.fromEntries(Object.entries(COLOURS).map(([kind, name]) => {
    canvas.style.color = `var(${name})`;
    return [kind, getComputedStyle(canvas).color];
  }));
}

function draw(canvas, intervals) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  const colours = coloursOf(canvas);
  const shown = bars(intervals, height).slice(-Math.floor(width / BAR_PX));
  shown.forEach((bar, at) => {
    context.fillStyle = colours[bar.kind];
    context.fillRect(at * BAR_PX, height - bar.height, BAR_PX - 1, bar.height);
  });
}
