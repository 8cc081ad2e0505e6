// Whatever the pieces in which a text arrives, its parts are those of the whole, and make what the parser makes of it.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { toHtml } from '../../static/markdown/parser.js';
import { comparable, htmlOf, partsOf } from './assemble.js';
import { randomLines, randomText, seeded } from './random_text.js';

// Texts whose parts look back or look ahead, for which a splitter could be wrong.
const CORPUS = JSON.parse(readFileSync(new URL('corpus.json', import.meta.url)));
const SMALL_WINDOWS = [60, 200];

// As the view passes it on.
const plain = (text) => text.replace(/\r\n?/g, '\n').replaceAll('\0', '\uFFFD');
const everyCut = (text) => Array.from({ length: text.length }, (_, at) => at).slice(1);

function assertSame(text, cuts) {
  const references = {};
  const whole = toHtml(text, { references, isWhole: true });
  assert.equal(htmlOf(partsOf(text, cuts), references), whole, JSON.stringify({ text, cuts }));
}

for (const text of CORPUS.map(plain)) {
  test(`every cut of ${JSON.stringify(text.slice(0, 40))}`, () => {
    assertSame(text, []);
    assertSame(text, everyCut(text));
    for (const cut of everyCut(text)) assertSame(text, [cut]);
  });
}

test('random texts, character by character', () => {
  const random = seeded(1);
  for (let count = 0; count < 1500; count += 1) {
    const text = count % 2 ? randomText(random, 20) : randomLines(random, 9);
    assertSame(text, []);
    assertSame(text, everyCut(text));
    assertSame(text, [random(text.length)]);
  }
});

test('parts that are cut for their size are cut in the same places', () => {
  const random = seeded(2);
  for (let count = 0; count < 150; count += 1) {
    const text = randomLines(random, 90);
    const whole = comparable(partsOf(text, [], SMALL_WINDOWS));
    assert.deepEqual(comparable(partsOf(text, everyCut(text), SMALL_WINDOWS)), whole, JSON.stringify(text));
    assert.deepEqual(comparable(partsOf(text, [random(text.length)], SMALL_WINDOWS)), whole, JSON.stringify(text));
  }
});

test('a step reads no more than a window, whatever the shape', () => {
  const shapes = [
    'word '.repeat(10_000),
    'x'.repeat(50_000),
    `\`\`\`\n${'code\n'.repeat(10_000)}`,
    `| a |\n|---|\n${'| row |\n'.repeat(5000)}`,
    '- item\n'.repeat(5000),
    `1. item\n${'   - nested\n'.repeat(5000)}`,
    '> quote\n'.repeat(5000),
    `${'>'.repeat(200)} deep\n`.repeat(200),
    '[a]: https://example.org\n'.repeat(2000),
    '    code\n'.repeat(5000),
    `# ${'heading '.repeat(5000)}`,
    '$$\nx\n'.repeat(5000),
  ];
  for (const text of shapes) {
    for (const part of partsOf(text, [20_000])) assert.ok(!part.source || part.source.length <= 8400, text.slice(0, 20));
  }
});

test('nothing is lost where a part is cut', () => {
  const words = Array.from({ length: 5000 }, (_, at) => `word${at}`);
  const texts = [words.join(' '), words.join('\n'), `- ${words.join(' ')}`, `> ${words.join('\n> ')}`, `    ${words.join(' ')}`];
  for (const text of texts) {
    const html = partsOf(text, []).map((part) => (part.source ? toHtml(part.source, { references: {}, isWhole: true, isContinued: true }) : ''));
    const found = html.join('\n').match(/word\d+/g);
    assert.deepEqual(found, words, text.slice(0, 20));
  }
});
