"""Anthropic's wire format: a generation as the events of a streamed message. Pure.

What the events of an entry are depends on the entries before, so the encoder is given all of them.
"""

from everstream.apis.anthropic.errors import error_body
from everstream.apis.anthropic.events import MessageEvents
from everstream.apis.anthropic.message import BlockDelta, Event, TextDelta
from everstream.errors import EverstreamError, ShuttingDown
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.parts_encoder import NO_TEXT, PartsEncoder


class MessageEncoder(PartsEncoder):
    """An `Encoder` of one generation. `has_ids`: the client reads Server-Sent Events by the standard."""

    heartbeat = b'event: ping\ndata: {"type": "ping"}\n\n'
    needs_all = True

    def __init__(self, generation: Generation, *, has_ids: bool) -> None:
        super().__init__(generation.id, has_ids=has_ids)
        self.format = f"messages {has_ids}"
        self._id = generation.id.encode()
        self._events = MessageEvents(generation)

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - SDKs don't reconnect
        return self._framed(0, self._events.start(), _frame) if is_new else sse.GREETING

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        if self._has_ids:
            return b": come back\n\n"
        # Its client can't come back, and would take the end of the stream for the end of the message.
        return _frame(error_body(ShuttingDown("this process is shutting down; send the request again"))) + b"\n\n"

    def entry(self, entry: Entry) -> bytes:
        return self._more_text(entry) or self._framed(entry.n, self._events.entry(entry), _frame)

    def queued(self, place: sse.Queued) -> bytes:
        return b": queued %d\n\n" % place.position

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(error_body(error)))

    def _more_text(self, entry: Entry) -> bytes:
        """What most tokens are: more of the open block's text. Empty: this one is not."""
        at, text = self._events.open_text, self._text_alone(entry)
        if at is None or not text:
            return b""
        delta = _BEFORE % at + text + _AFTER
        return b"%b\nid: %b.%d\n\n" % (delta, self._id, entry.n) if self._has_ids else delta + b"\n\n"


def _frame(event: Event) -> bytes:
    """Without its id, which comes after it."""
    return b"event: %b\ndata: %b" % (str(event.__struct_config__.tag).encode(), encode_json(event))


_BEFORE, _AFTER = _frame(BlockDelta(0, TextDelta(""))).replace(b'"index":0', b'"index":%d').split(NO_TEXT)
