// Audio and images in a model's outputs: base64 texts that begin as such files do. Shown as they come.

import { h } from './dom.js';

const MIN_CHARS = 64;
const MAX_IMAGES = 64;
const STARTS = [
  ['iVBORw0KGgo', 'image/png'],
  ['/9j/', 'image/jpeg'],
  ['R0lGOD', 'image/gif'],
  ['UklGR', 'RIFF'],
  ['SUQz', 'audio/mpeg'],
  ['//u', 'audio/mpeg'],
  ['//v', 'audio/mpeg'],
  ['T2dnUw', 'audio/ogg'],
  ['ZkxhQ', 'audio/flac'],
];

// The pure part.

// The type of a base64 text, or null. RIFF files say what they are after their size.
export function mediaType(value) {
  if (typeof value !== 'string' || value.length < MIN_CHARS) return null;
  const [, type] = STARTS.find(([start]) => value.startsWith(start)) ?? [null, null];
  if (type === null || !/^[A-Za-z0-9+/]+={0,2}$/.test(value)) return null;
  if (type !== 'RIFF') return type;
  return { WAVE: 'audio/wav', WEBP: 'image/webp' }[atob(value.slice(0, 16)).slice(8, 12)] ?? null;
}

// { media: [{ name, type, value }], rest: what else the output has }
export function splitOutput(data) {
  const media = [];
  const rest = {};
  for (const [name, value] of Object.entries(data)) {
    const type = mediaType(value);
    if (type) media.push({ name, type, value });
    else rest[name] = value;
  }
  return { media, rest };
}

// The part that touches the page.

// Shows pieces of media in an element. `close` silences it, and frees what it holds.
export function createMediaView(element) {
  const urls = new Set();
  let player = null;
  let images = 0;

  function add({ name, type, value }) {
    const blob = new Blob([Uint8Array.from(atob(value), (char) => char.charCodeAt(0))], { type });
    if (type.startsWith('image/')) addImage(name, blob);
    else {
      player ??= createPlayer(element);
      player.add(blob);
    }
  }

  // A model that refines an image sends many of it.
  function addImage(name, blob) {
    images += 1;
    const src = URL.createObjectURL(blob);
    urls.add(src);
    element.append(h('img', { alt: `${name}, image ${images}`, src, on: { load: free, error: free } }));
    if (images > MAX_IMAGES) element.querySelector('img').remove();
  }

  function free({ target }) {
    URL.revokeObjectURL(target.src);
    urls.delete(target.src);
  }

  return {
    add,
    close() {
      player?.close();
      for (const url of urls) URL.revokeObjectURL(url);
    },
  };
}

// Plays pieces one after another, without gaps, also while more of them come.
function createPlayer(element) {
  const label = h('span', { class: 'detail' });
  const button = h('button', { type: 'button', on: { click: toggle } }, 'Play');
  element.append(h('div', { class: 'player' }, button, label));
  const pieces = [];
  let context = null;
  let next = 0;
  let endsAt = 0;
  // Pieces are decoded one after another, so that a short one does not overtake a long one.
  let decoding = Promise.resolve();

  function add(blob) {
    pieces.push(blob);
    label.textContent = `${pieces.length} ${pieces.length === 1 ? 'piece' : 'pieces'} of audio`;
    if (context?.state === 'running') schedule();
  }

  // Browsers play sound only after a click.
  async function toggle() {
    context ??= new AudioContext();
    if (context.state === 'running' && endsAt > context.currentTime) {
      await context.suspend();
      button.textContent = 'Play';
      return;
    }
    await context.resume();
    if (next === pieces.length) next = 0;
    button.textContent = 'Pause';
    schedule();
  }

  function schedule() {
    for (; next < pieces.length; next += 1) {
      const piece = pieces[next];
      decoding = decoding.then(() => play(piece));
    }
  }

  async function play(piece) {
    if (context.state === 'closed') return;
    const source = context.createBufferSource();
    // A piece that can't be decoded is left out.
    source.buffer = await piece.arrayBuffer().then((bytes) => context.decodeAudioData(bytes)).catch(() => null);
    if (!source.buffer || context.state === 'closed') return;
    source.connect(context.destination);
    const startsAt = Math.max(endsAt, context.currentTime);
    endsAt = startsAt + source.buffer.duration;
    source.start(startsAt);
    source.addEventListener('ended', () => { if (endsAt <= context.currentTime) button.textContent = 'Play again'; });
  }

  return { add, close: () => context?.close() };
}
