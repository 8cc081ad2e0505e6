// What tells people about an answer when they don't look at it: the tab's title and icon, and a text for screen readers,
// sentence by sentence.

import { h, setText } from './dom.js';

const BASE = new URL('../', import.meta.url).href;
const ICONS = { idle: 'icon.svg', busy: 'icon-busy.svg', done: 'icon-done.svg', failed: 'icon-failed.svg' };
const MARKS = { idle: '', busy: '… ', done: '✓ ', failed: '! ' };

// Returns show({ title, phase }): phase is idle, busy, done or failed. The end stays marked until the page is looked at.
export function createTabMark() {
  const link = document.querySelector('link[rel=icon]');
  let isUnseen = false;
  let last = { title: '', phase: 'idle' };

  function render() {
    const { title, phase } = last;
    const mark = phase === 'busy' || isUnseen ? phase : 'idle';
    document.title = `${MARKS[mark]}${title ? `${title} · Everstream` : 'Everstream'}`;
    const href = `${BASE}${ICONS[mark]}`;
    if (link.href !== href) link.href = href;
  }

  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return;
    isUnseen = false;
    render();
  });
  return (given) => {
    const hasEnded = last.phase === 'busy' && given.phase !== 'busy';
    isUnseen = hasEnded ? document.hidden : isUnseen && given.phase === last.phase;
    last = given;
    render();
  };
}

const SENTENCE = /[.!?…。！？](?=\s|$)|\n\n/gu;
const KEPT = 20;

// Returns { reset, say, finish }: an answer's text so far becomes lines in a live region, each a whole sentence.
export function createAnnouncer(region) {
  let said = 0;

  function announce(text) {
    const plain = text.replace(/[*_`#>|~]+/g, '').trim();
    if (plain) region.append(h('p', {}, plain));
    while (region.children.length > KEPT) region.firstChild.remove();
  }

  return {
    reset(at = 0) {
      said = at;
      setText(region, '');
    },
    // Looks only at what has come since the last sentence.
    say(text) {
      const rest = text.slice(said);
      const ends = [...rest.matchAll(SENTENCE)];
      // What is at the very end may still go on: "3." and then "14".
      const last = ends.filter((end) => end.index + end[0].length < rest.length).at(-1);
      if (!last) return;
      const length = last.index + last[0].length;
      announce(rest.slice(0, length));
      said += length;
    },
    finish(text) {
      announce(text.slice(said));
      said = text.length;
    },
  };
}
