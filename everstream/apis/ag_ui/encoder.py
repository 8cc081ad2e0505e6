"""The wire format of an AG-UI run: a generation as Server-Sent Events with one event each. Pure.

What the events of an entry are depends on the entries before, so the encoder is given all of them. TanStack AI's client
reads lines, and takes an id for that of the data that follows it.
"""

from everstream.apis.ag_ui.events import AnyEvent, RunError, TextMessageContent
from everstream.apis.ag_ui.run_events import Run, RunEvents
from everstream.contract.chat_outputs import has_choices
from everstream.errors import EverstreamError, ResponseCut
from everstream.log.entries import TOKEN, Entry, encode_json, text_literal
from everstream.web import sse
from everstream.web.parts_encoder import PartsEncoder


class RunEncoder(PartsEncoder):
    """An `Encoder` of one generation."""

    needs_all = True
    is_id_first = True

    def __init__(self, generation: str, run: Run) -> None:
        super().__init__(generation, has_ids=True)
        self.format = f"ag-ui {run.run_id}"
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

    def token(self, n: int, data: bytes) -> bytes:
        return self.entry(Entry(n, TOKEN, data))

    def entry(self, entry: Entry) -> bytes:
        return self._more_text(entry) or self._unseen(entry.n, self._events.entry(entry))

    def queued(self, place: sse.Queued) -> bytes:
        return self._note(b"queued %d" % place.position)

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(encode_json(RunError(error.message, error.code))))

    def _unseen(self, n: int, events: list[AnyEvent]) -> bytes:
        return self._framed(n, [encode_json(event) for event in events], _frame)

    def _more_text(self, entry: Entry) -> bytes:
        """What most tokens are: more of the open message's text, which is not decoded. Empty: this one is not."""
        message = self._events.open_text
        if not message or entry.event != TOKEN or has_choices(entry.data) or entry.n <= (self._seen.n or 0):
            return b""
        text = text_literal(entry.data) or _EMPTY
        if text == _EMPTY:
            return b""
        return b"id: %b.%d\n%b%b%b\n\n" % (self._id, entry.n, _BEFORE % message.encode(), text, _AFTER)


def _frame(data: bytes) -> bytes:
    """Without its id."""
    return b"data: " + data


_EMPTY = b'""'
_BEFORE, _AFTER = _frame(encode_json(TextMessageContent("%b", ""))).split(_EMPTY)
