// What lines mean: finished ones, and those that are still being written.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { firstPiece, highlight, pieces } from '../../static/markdown/code.js';
import { texOf } from '../../static/markdown/maths.js';
import { toHtml } from '../../static/markdown/parser.js';
import { presentable } from '../../static/markdown/unfinished.js';

const LINK = 'rel="noopener noreferrer nofollow" target="_blank"';
const inner = (html) => html.replace(/^<p dir="auto">(.*)<\/p>$/s, '$1');
const finished = (text) => inner(toHtml(text, { references: {}, isWhole: true }));
const growing = (text) => inner(toHtml(presentable(text), { references: {}, isUnfinished: true }));
const formula = (source) => `<span class="formula pending" dir="ltr">${source}</span>`;

const FINISHED = [
  ['$5 and $10', '$5 and $10'],
  ['US$5 or $5/$6, $x$1, 10$', 'US$5 or $5/$6, $x$1, 10$'],
  ['$x$, $ y $ \\$z$', `${formula('$x$')}, $ y $ $z$`],
  ['$$x$$ \\(a_1*b*\\) \\[c\\] \\(d', `${formula('$$x$$')} ${formula('\\(a_1*b*\\)')} ${formula('\\[c\\]')} (d`],
  ['`$x$` $a`b`c$', `<code>$x$</code> ${formula('$a`b`c$')}`],
  ['<b>&amp;&#60;</b>', '&lt;b&gt;&amp;amp;&amp;#60;&lt;/b&gt;'],
  ['[a](javascript:x) [b](/path) [c](data:x) [d](//e.org)', '[a](javascript:x) [b](/path) [c](data:x) [d](//e.org)'],
  ['[a](https://e.org "t")', `<a href="https://e.org" title="t" ${LINK}>a</a>`],
  ['![a *b*](https://e.org/i.png)', `<a href="https://e.org/i.png" ${LINK}>a b</a>`],
  ['![](https://e.org/i.png)', `<a href="https://e.org/i.png" ${LINK}>https://e.org/i.png</a>`],
  ['[![alt](https://i.org)](https://e.org)', `<a href="https://e.org" ${LINK}>alt</a>`],
  ['see https://e.org/a.', `see <a href="https://e.org/a" ${LINK}>https://e.org/a</a>.`],
  ['e.org and a@e.org', 'e.org and a@e.org'],
  ['a\n   b  \nc', 'a\n   b<br>c'],
  ['**unclosed `code', '**unclosed `code'],
];

for (const [text, html] of FINISHED) {
  test(`finished: ${text}`, () => assert.equal(finished(text), html));
}

const GROWING = [
  ['some **bold', 'some <strong>bold</strong>'],
  ['some **bold*', 'some <strong>bold</strong>'],
  ['some **bold** and *', 'some <strong>bold</strong> and'],
  ['***both', '<em><strong>both</strong></em>'],
  ['**a *b', '<strong>a <em>b</em></strong>'],
  ['~~gone', '<s>gone</s>'],
  ['a `co', 'a <code>co</code>'],
  ['a ``co`d', 'a <code>co`d</code>'],
  ['a [lab', 'a lab'],
  ['a [**lab', 'a <strong>lab</strong>'],
  ['a [label](https://e', 'a label'],
  ['a ![label](https://e', 'a label'],
  ['a [label](https://e "ti', 'a label'],
  ['a [1] b', 'a [1] b'],
  ['a \\(x_1 *y', 'a \\(x_1 *y'],
  ['a $$x_1 *y', 'a $$x_1 *y'],
  ['2 * 3', '2 * 3'],
  [`*${'long '.repeat(60)}`, `*${'long '.repeat(60).trim()}`],
  ['text\n-', 'text'],
  ['text\n==', 'text'],
  ['- a\n2', '<ul dir="auto"><li><p>a</p></li></ul>'],
];

for (const [text, html] of GROWING) {
  test(`growing: ${text.slice(0, 40)}`, () => assert.equal(growing(text), html));
}

test('an opening fence is a code block at once, without a language that is still being written', () => {
  for (const text of ['```', '```pyth', '~~~', '- ```js', '> ```']) {
    const html = growing(text);
    assert.match(html, /<div class="code"/);
    assert.match(html, /<span class="language"><\/span>/);
  }
});

test('a table is one from its first line on, with the columns so far', () => {
  for (const text of ['| a | b', '| a | b |\n', '| a | b |\n|', '| a | b |\n|--', '| a | b |\n|---|-', '| a | b |\n|---|---|']) {
    assert.match(growing(text), /<tr><th>a<\/th><th>b<\/th><\/tr>/, text);
  }
  assert.doesNotMatch(growing('|x'), /<table>/);
  assert.equal(growing('| a | b |\nno'), '| a | b |\nno');
});

test('the source of a formula', () => {
  assert.deepEqual(texOf('$x$'), { tex: 'x', display: false });
  assert.deepEqual(texOf('$$\nx\n$$'), { tex: '\nx\n', display: true });
  assert.deepEqual(texOf('\\(x\\)'), { tex: 'x', display: false });
  assert.deepEqual(texOf('\\[x\\]'), { tex: 'x', display: true });
});

test('code is cut at lines, best where nothing is open, and never in a character', () => {
  const lines = 'indented line\n'.repeat(1000);
  assert.equal(pieces(lines).join(''), lines);
  assert.ok(pieces(lines).every((piece) => piece.endsWith('\n') && piece.length <= 8192));
  const withGap = `${'    x\n'.repeat(1000)}\ndef f():\n${'    y\n'.repeat(2000)}`;
  assert.equal(firstPiece(withGap), withGap.indexOf('def'));
  assert.equal(firstPiece('\u{1F600}'.repeat(5000)), 8192);
  assert.equal(firstPiece(`x${'\u{1F600}'.repeat(5000)}`), 8191);
  assert.deepEqual(pieces(''), []);
});

test('only known languages and lines of a sensible length are highlighted', () => {
  assert.match(highlight('x = 1', 'Python'), /hljs-number/);
  assert.equal(highlight('<x> & "1"', 'no "such'), '&#60;x&#62; &#38; &#34;1&#34;');
  assert.doesNotMatch(highlight(`x = "${'1'.repeat(1000)}"`, 'python'), /hljs/);
  assert.equal(highlight('constructor', 'constructor'), 'constructor');
});

test('deep nesting is text, not lost', () => {
  assert.match(toHtml(`${'>'.repeat(300)} deep`, { references: {}, isWhole: true }), />{3,}|(&gt;){200,} deep/);
});
