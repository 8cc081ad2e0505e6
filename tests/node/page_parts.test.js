// The page's other pure parts: media in outputs, the health panel's figures.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bars, median, size } from '../../static/page/health.js';
import { mediaType, splitOutput } from '../../static/page/media.js';
import { createRecorder } from '../../static/page/recorder.js';

const base64 = (...parts) => Buffer.concat([...parts.map((part) => Buffer.from(part)), Buffer.alloc(60)]).toString('base64');
const PNG = base64([0x89], 'PNG\r\n', [0x1a, 0x0a]);
const WAV = base64('RIFF', [1, 2, 3, 4], 'WAVE');

test('media is known by how it begins', () => {
  const cases = [
    [PNG, 'image/png'], [WAV, 'audio/wav'], [base64('RIFF', [0, 0, 0, 0], 'WEBP'), 'image/webp'],
    [base64([0xff, 0xd8, 0xff, 0xe0]), 'image/jpeg'], [base64('GIF89a'), 'image/gif'], [base64('OggS', [0]), 'audio/ogg'],
    [base64('ID3', [3]), 'audio/mpeg'], [base64('fLaC'), 'audio/flac'],
    [base64('RIFF', [0, 0, 0, 0], 'AVI '), null], ['iVBORw0KGgo', null], ['Hello. '.repeat(20), null], [7, null],
    [`${PNG}<script>`, null],
  ];
  for (const [value, type] of cases) assert.equal(mediaType(value), type);
});

test('an output is its media and the rest', () => {
  const { media, rest } = splitOutput({ audio: WAV, sample_rate: 24000, note: 'A' });
  assert.deepEqual(media.map(({ name, type }) => [name, type]), [['audio', 'audio/wav']]);
  assert.deepEqual(rest, { sample_rate: 24000, note: 'A' });
});

test('the recorder counts, and keeps the last times between tokens', () => {
  const recorder = createRecorder();
  const message = (n) => ({ type: 'message', n, data: { text: 'a' }, json: '{"text":"é"}' });
  recorder.record({ type: 'connected', data: { last: 2 }, json: '{}' }, 0);
  for (const [n, at] of [[1, 10], [2, 10], [3, 30], [4, 70]]) recorder.record(message(n), at);
  recorder.record({ type: 'reconnecting', data: { attempt: 1, reason: { code: 'gap' } }, json: '{}' }, 80);
  recorder.record({ type: 'reconnecting', data: { attempt: 2, reason: { code: '' } }, json: '{}' }, 90);
  recorder.record({ type: 'resumed', n: 5, data: { attempt: 2 }, json: '{}' }, 95);
  assert.deepEqual(recorder.intervals, [20, 40, { kind: 'cut' }, { kind: 'restart' }]);
  const { counts } = recorder;
  assert.deepEqual([counts.reconnects, counts.gaps, counts.resumes, counts.events], [1, 1, 1, 8]);
  assert.equal(counts.bytes, 4 * 13 + 4 * 2);
});

test('the strip is bounded', () => {
  const recorder = createRecorder();
  for (let n = 0; n < 1000; n += 1) recorder.record({ type: 'message', n, data: { text: 'a' }, json: '{}' }, n);
  assert.equal(recorder.intervals.length, 240);
});

test('figures', () => {
  assert.equal(median([30, { kind: 'cut' }, 10, 20]), 20);
  assert.equal(median([]), 0);
  assert.deepEqual([size(9999), size(12_345)], ['9999 B', '12 kB']);
  const [short, long, cut] = bars([0, 500, { kind: 'cut' }], 48);
  assert.deepEqual([short.height, long.height, cut], [1, 48, { height: 48, kind: 'cut' }]);
});
