"""OpenAI's wire format of a response's stream: `events`, framed. Pure.

Comments are never followed by an empty line: once OpenAI's Python client has seen an `id`, it takes an empty line for
an event, whose empty data it can't parse.
"""

import re

from everstream.apis.openai.responses.events import ResponseEvents
from everstream.apis.openai.responses.open_items import OpenMessage
from everstream.apis.openai.responses.output import Event
from everstream.apis.openai.responses.record import Record
from everstream.contract.chat_outputs import has_choices
from everstream.errors import EverstreamError, ShuttingDown
from everstream.log.entries import TOKEN, Entry, encode_json, text_literal
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.parts_encoder import PartsEncoder

EVERYTHING = -1
"""The `starting_after` of a client that has seen no event."""


class ResponseEncoder(PartsEncoder):
    """An `Encoder` of one generation."""

    needs_all = True

    def __init__(
        self, generation: Generation, record: Record, *, has_ids: bool, starting_after: int = EVERYTHING
    ) -> None:
        """`has_ids`: the client reads Server-Sent Events by the standard. `starting_after`: the number of the last
        event that it has seen."""
        super().__init__(generation.id, has_ids=has_ids)
        self.format = f"response {has_ids}"
        self._starting_after = starting_after
        self._last_n = 0
        self._id = generation.id.encode()
        self._message: OpenMessage | None = None
        self._template: list[bytes] = []
        self._events = ResponseEvents(generation, record.echoed, is_background=record.is_background)

    @property
    def heartbeat(self) -> bytes:
        if self._last_n < (self._seen.n or 0) or self._events.sequence_number < self._starting_after:
            # It still reads what the client has seen, so its last number is not the client's.
            return self._note(b"heartbeat")
        return _frame(self._events.heartbeat()) + b"\n\n"

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - SDKs don't reconnect
        greeting = sse.GREETING if self._has_ids else b""
        return greeting + self._unseen(0, self._events.opening())

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        if self._has_ids:
            return b": come back\n"
        # Its client takes any end of the stream for the end of the response.
        error = ShuttingDown("this process is shutting down; get the rest of this response with ?stream=true")
        return _frame(self._events.lost(error)) + b"\n\n"

    def entry(self, entry: Entry) -> bytes:
        # For a late joiner, entries may be joined; the number is that of the last.
        joined = entry.n - self._last_n
        return self._more_text(entry, joined) or self._unseen(entry.n, self._events.entry(entry, joined))

    def queued(self, place: sse.Queued) -> bytes:
        return self._note(b"queued %d" % place.position)

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(self._events.lost(error)))

    def _more_text(self, entry: Entry, joined: int) -> bytes:
        """What most tokens are: more of the open message's text, of which no more is decoded. Empty: it is not."""
        message = self._events.open_message
        if message is None or entry.event != TOKEN or has_choices(entry.data) or entry.n <= (self._seen.n or 0):
            return b""
        text = text_literal(entry.data) or _EMPTY
        if text == _EMPTY or self._events.sequence_number < self._starting_after:
            return b""
        if message is not self._message:
            self._message = message
            self._template = _PLACES.split(_frame(message.empty_delta()))
        before, between, after = self._template
        self._last_n, number = entry.n, self._events.more_text(text, joined)
        delta = b"%b%b%b%d%b" % (before, text, between, number, after)
        return b"%b\nid: %b.%d\n\n" % (delta, self._id, entry.n) if self._has_ids else delta + b"\n\n"

    def _unseen(self, n: int, events: list[Event]) -> bytes:
        """Those of entry n's events that the client has not seen, by its event id or by their numbers."""
        self._last_n = n
        seen = sum(event.sequence_number <= self._starting_after for event in events)
        return self._framed(n, events, _frame, seen)


def _frame(event: Event) -> bytes:
    """Without its id, which comes after it."""
    return b"event: %b\ndata: %b" % (event.name.encode(), encode_json(event))


_EMPTY = b'""'
_PLACES = re.compile(b'(?<="delta":)""|(?<="sequence_number":)-1')
"""Of what differs between the deltas of one message."""
