// Random Markdown that is mostly edge cases.

const FRAGMENTS = [
  'para', ' text ', '\n', '\n', '\n\n', '\n\n', '- ', '* ', '1. ', '2) ', '  ', '    ', '\t', '> ', '>', '# ', '===', '---',
  '```', '```js', '~~~', '| a | b |', '|---|---|', '|--|', '|', '$$', '$$x$$', '\\[', '\\]', '[a]: https://x.y', '[a]:',
  "'title", "'", '"t"', '[a]', '[b][a]', '**b', '*', '_', '`', '![i](https://i)', '<div>', '</div>', '***', '10. ', '-',
  '+ ', '\n- a\n- b\n', '\n\n  cont', '\\', '^1', '[^1]: https://n', '&amp;', '-\n', '\n    code\n',
];
const LINES = [
  'a', 'b', '', '', '- x', '* y', '1. z', '2. w', '  - n', '  c', '   - d', '    e', '     - f', '\tt', '> q', '>', '> - l',
  '# h', '---', '===', '```', '  ```', '> ```', '~~~', '| a | b |', '|---|---|', '|x|', '$$', '  $$', '> $$',
  '[a]: https://x.y', '[a]', '"t', 't"', '-', '- ', '1.', '- - m', '- > p', '-     g', '10) k', '***', '  ', 'b | c', '\\[',
  'x\\]',
];

// mulberry32: returns a function that draws an integer below its argument.
export function seeded(seed) {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

export function randomText(random, size) {
  return drawn(random, FRAGMENTS, size).join('');
}

export function randomLines(random, size) {
  return drawn(random, LINES, size).map((line) => `${line}\n`).join('');
}

function drawn(random, from, size) {
  return Array.from({ length: 2 + random(size) }, () => from[random(from.length)]);
}
