"""The wire format of an AG-UI run: a generation as Server-Sent Events with one event each. Pure.

What the events of an entry are depends on the entries before, so the encoder is given all of them. TanStack AI's client
reads lines, and pairs an id with the next `data` line.
"""

from everstream.apis.ag_ui.events import AnyEvent, RunError, TextMessageContent
from everstream.apis.ag_ui.run_events import Run, RunEvents
from everstream.errors import EverstreamError, ResponseCut
from everstream.log.entries import Entry, encode_json
from everstream.web import sse
from everstream.web.parts_encoder import NO_TEXT, PartsEncoder


class RunEncoder(PartsEncoder):
    """An `Encoder` of one generation."""

    needs_all = True
    is_id_first = True

    def __init__(self, generation: str, run: Run) -> None:
        super().__init__(generation, has_ids=True)
        self.format = "ag-ui"
        self._id = generation.encode()
        self._events = RunEvents(generation, run)

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - clients have their own delay
        return sse.GREETING + self._unseen(0, self._events.start())

    @property
    def heartbeat(self) -> bytes:
        return self._note(b"heartbeat")

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        # Clients that resume also do so after a broken connection, and others must not take the run for a complete one.
        raise ResponseCut("this process is shutting down; the rest of the stream is elsewhere")

    def entry(self, entry: Entry) -> bytes:
        return self._more_text(entry) or self._made(entry)

    def _made(self, entry: Entry) -> bytes:
        events = self._events.entry(entry)
        if entry.is_terminal and self._seen.seen_of(entry.n, len(events)) == len(events):
            # The client asks again, because it did not see the end of the response. TanStack AI's takes only an event
            # without an id for one that it has not seen.
            return _frame(encode_json(events[-1])) + b"\n\n"
        return self._unseen(entry.n, events)

    def queued(self, place: sse.Queued) -> bytes:
        return self._note(b"queued %d" % place.position)

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(encode_json(RunError(error.message, error.code))))

    def _unseen(self, n: int, events: list[AnyEvent]) -> bytes:
        return self._framed(n, [encode_json(event) for event in events], _frame)

    def _more_text(self, entry: Entry) -> bytes:
        """What most tokens are: more of the open message's text. Empty: this one is not."""
        message, text = self._events.open_text, self._text_alone(entry)
        if not (message and text):
            return b""
        return b"id: %b.%d\n%b%b%b\n\n" % (self._id, entry.n, _BEFORE % message.encode(), text, _AFTER)


def _frame(data: bytes) -> bytes:
    """Without its id."""
    return b"data: " + data


_BEFORE, _AFTER = _frame(encode_json(TextMessageContent("%b", ""))).split(NO_TEXT)
