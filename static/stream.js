// One generation over EventSource, across drops. EventSource reconnects by itself with Last-Event-ID, but any answer
// other than 200 closes it for good, and a new object sends no Last-Event-ID: so a new one gets it in the address.

import { TERMINAL } from './state.js';

const EVENTS = ['message', 'open', 'queued', 'resumed', ...TERMINAL];
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 30000;

// Calls onEvent({ type, id, data }) for each event, and with type connecting or lost for the connection itself.
// Returns a function that ends it.
export function followGeneration(eventsUrl, onEvent) {
  let source = null;
  let timer = 0;
  let failures = 0;
  let lastId = '';

  function connect() {
    const query = lastId ? `?last_event_id=${encodeURIComponent(lastId)}` : '';
    source = new EventSource(eventsUrl + query);
    for (const type of EVENTS) source.addEventListener(type, receive);
    source.addEventListener('error', lose);
  }

  function receive(event) {
    // EventSource's own `open`, which says that it is connected, has no data; the server's has.
    if (event.data === undefined) {
      onEvent({ type: 'connecting', id: '' });
      return;
    }
    failures = 0;
    lastId = event.lastEventId;
    if (TERMINAL.has(event.type)) end();
    // Events without an id of their own carry the last one.
    onEvent({ type: event.type, id: event.type === 'queued' ? '' : event.lastEventId, data: JSON.parse(event.data) });
  }

  function lose() {
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

// Full jitter: clients that lost one server must not come back together.
export function backoff(failures) {
  const limit = Math.min(BACKOFF_MIN_MS * 2 ** failures, BACKOFF_MAX_MS);
  return limit / 2 + Math.random() * (limit / 2);
}
