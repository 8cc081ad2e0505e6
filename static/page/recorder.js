// What the health panel shows of one answer's stream. Pure.

const SHOWN = 240;

export function createRecorder() {
  const intervals = [];
  const counts = { events: 0, bytes: 0, reconnects: 0, resumes: 0, caughtUp: 0, gaps: 0, silences: 0 };
  const encoder = new TextEncoder();
  let lastAt = null;
  let catchUpTo = 0;

  return {
    counts,
    // The last times between two tokens, in milliseconds. A mark is { kind } in place of a time: `cut` or `restart`.
    intervals,
    record({ type, n, data, json }, now) {
      if (typeof json === 'string') {
        counts.events += 1;
        counts.bytes += encoder.encode(json).length;
      }
      if (type === 'connected') catchUpTo = data.last;
      if (type === 'caught_up') counts.caughtUp += data.count;
      if (type === 'resumed') {
        counts.resumes += 1;
        push({ kind: 'restart' });
      }
      if (type === 'reconnecting' && data.attempt === 1) {
        counts.reconnects += 1;
        counts.gaps += data.reason.code === 'gap' ? 1 : 0;
        counts.silences += data.reason.code === 'silent' ? 1 : 0;
        push({ kind: 'cut' });
      }
      if (type !== 'message') return;
      // What was generated before came in one burst.
      if (lastAt !== null && n > catchUpTo) push(now - lastAt);
      lastAt = now;
    },
  };

  function push(item) {
    intervals.push(item);
    if (intervals.length > SHOWN) intervals.shift();
  }
}
