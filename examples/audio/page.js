// Plays audio while it is generated: each event is a WAV file, and starts where the one before it ends.

const RETRY_MS = 1000;
// Pieces wait this long before they play, so that a late one leaves no gap.
const LEAD_S = 0.3;

const form = document.querySelector('form');
const status = document.querySelector('[role=status]');

form.addEventListener('submit', (event) => {
  event.preventDefault();
  play(form.elements.notes.value);
});

function play(notes) {
  form.querySelector('button').disabled = true;
  let context = null;
  let playAt = 0;
  let pieces = 0;
  let inOrder = Promise.resolve();

  async function schedule({ audio, sample_rate: sampleRate }) {
    // At the pieces' own rate: resampling each piece would click at the seams.
    context ??= new AudioContext({ sampleRate });
    const bytes = Uint8Array.from(atob(audio), (character) => character.charCodeAt(0));
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(bytes.buffer);
    source.connect(context.destination);
    if (playAt < context.currentTime) playAt = context.currentTime + LEAD_S;
    source.start(playAt);
    playAt += source.buffer.duration;
    pieces += 1;
    status.textContent = `${pieces} pieces`;
  }

  function finish(text) {
    inOrder = inOrder.then(() => {
      status.textContent = `${text}, ${pieces} pieces`;
      form.querySelector('button').disabled = false;
    });
  }

  follow(notes, {
    onPiece: (piece) => { inOrder = inOrder.then(() => schedule(piece)); },
    onLost: () => { status.textContent = `Connection lost, ${pieces} pieces`; },
    onEnd: finish,
  });
}

// Every event has an id. EventSource sends the last one when it reconnects, and the stream continues after it. After an
// error status it does not reconnect; then a new EventSource gets the id in its URL.
function follow(notes, { onPiece, onLost, onEnd }) {
  // With a request id, a connection that is lost before the first event does not start the music a second time.
  const query = new URLSearchParams({ notes, request_id: crypto.randomUUID() });
  let source = null;

  function connect() {
    source = new EventSource(`/stream?${query}`);
    source.addEventListener('message', (event) => {
      query.set('last_event_id', event.lastEventId);
      onPiece(JSON.parse(event.data));
    });
    source.addEventListener('error', () => {
      onLost();
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
    });
    source.addEventListener('done', () => end('Done'));
    source.addEventListener('cancelled', () => end('Stopped'));
    source.addEventListener('failed', (event) => end(`Failed: ${JSON.parse(event.data).message}`));
  }

  function end(text) {
    source.close();
    onEnd(text);
  }

  connect();
}
