// Follows one generation over EventSource, across lost connections. EventSource reconnects by itself with
// Last-Event-ID, but any status other than 200 closes it for good. A new object sends no Last-Event-ID, so it gets the
// id in the URL.

import { TERMINAL } from './state.js';

const EVENTS = ['message', 'open', 'queued', 'resumed', ...TERMINAL];
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 30000;

// Calls onEvent({ type, id, data, json }) for each event, and with type connecting or lost for the connection itself.
// Returns a function that stops following.
export function followGeneration(eventsUrl, onEvent) {
  let source = null;
  let timer = 0;
  let failures = 0;
  let lastId = '';

  function connect() {
    const query = lastId ? `?last_event_id=${encodeURIComponent(lastId)}` : '';
    source = new EventSource(eventsUrl + query);
    for (const type of EVENTS) source.addEventListener(type, receive);
    source.addEventListener('error', handleError);
  }

  function receive(event) {
    // EventSource's own `open`, fired when it connects, has no data. The server's `open` has data.
    if (event.data === undefined) {
      onEvent({ type: 'connecting', id: '' });
      return;
    }
    failures = 0;
    lastId = event.lastEventId;
    if (TERMINAL.has(event.type)) end();
    // EventSource gives an event without an id the previous one's id.
    const id = event.type === 'queued' ? '' : event.lastEventId;
    onEvent({ type: event.type, id, data: JSON.parse(event.data), json: event.data });
  }

  function handleError() {
    onEvent({ type: 'lost', id: '' });
    if (source.readyState !== EventSource.CLOSED) return;
    timer = setTimeout(connect, backoff(failures));
    failures += 1;
  }

  function end() {
    clearTimeout(timer);
    source.close();
  }

  connect();
  return end;
}

// Equal jitter: clients that lost one server must not reconnect together.
export function backoff(failures) {
  const limit = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS);
  return limit / 2 + Math.random() * (limit / 2);
}
