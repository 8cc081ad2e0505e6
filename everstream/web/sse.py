"""Server-Sent Events (WHATWG HTML, section 9.2): the building blocks of all APIs' encoders. Pure.

JSON data has no line breaks, so its event has one `data` line and text in it arrives unchanged. Only text on its own
has several lines (`text_lines`). Event ids are `<generation>.<n>`, n being an entry's number; only `[0-9a-z.-]` gets
into an `id` line. Where an entry becomes several events, all but the last have the id `<generation>.<n>-<part>`, part
being 0, 1, and so on. In a ticket's stream, ids end with `.<signature>`, see `access.signed`.
"""

import re
from typing import NamedTuple, Protocol

from everstream.errors import EverstreamError, InvalidInput
from everstream.log.entries import Entry

MIMETYPE = "text/event-stream"
GREETING = b": everstream\n"
HEARTBEAT = b": heartbeat\n\n"
GONE = "expired"
"""Replaces n in the id of a terminal event that is not in the log. A client that sends it back has seen that event."""

GENERATION_ID = "[0-9a-f]{32}"
NUMBER = "0|[1-9][0-9]{0,8}"
"""Of an entry or an event, up to `MAX_NUMBER`."""
MAX_NUMBER = 999_999_999
EVENT_ID = rf"({GENERATION_ID})\.({NUMBER}|{GONE})(?:-(0|[1-9][0-9]{{0,5}}))?(?:\.([0-9a-f]{{32}}))?"
_EVENT_ID = re.compile(EVENT_ID, re.ASCII)


class EventId(NamedTuple):
    """The last event that a client has seen. `n` None: its id had `GONE`. -1: it has seen nothing. `part`: of the
    entry's events it has seen those up to this one; None: all of them. `signature`: see `access.signed`."""

    generation: str
    n: int | None
    part: int | None = None
    signature: str = ""

    @property
    def is_first(self) -> bool:
        return self.n == -1

    def seen_of(self, n: int, count: int) -> int:
        """How many of the `count` events of entry n the client has seen."""
        if self.n is None or n < self.n:
            return count
        if n > self.n:
            return 0
        return count if self.part is None else min(self.part + 1, count)


class Queued(NamedTuple):
    """A place in a queue of `length`, from 1; 0 once an engine has claimed the generation."""

    position: int
    length: int


class EngineState(NamedTuple):
    """What a model's engines do, as `model_state` has it: ready, loading or failed, and in one line, why."""

    state: str
    message: str = ""


def retry(milliseconds: int) -> bytes:
    """Sets how long the browser waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def event(name: str, data: bytes, event_id: str = "") -> bytes:
    """One event; an empty name is the default event, `message`."""
    lines = [b"event: " + name.encode()] if name else []
    if event_id:
        lines.append(b"id: " + event_id.encode())
    return b"\n".join([*lines, b"data: " + data, b"", b""])


def text_lines(text: str) -> bytes:
    """An event's data as `data` lines, with LF in place of CRLF and CR, which SSE can't carry."""
    # By the standard these end a line, and no others: `str.splitlines` also splits at U+2028, U+0085, \x0b and \x0c.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    return b"data: %b\n" % text.encode()


class Encoder(Protocol):
    """One generation in one format. Encoders with equal `generation` and `format` encode an entry identically."""

    generation: str
    format: str
    shows_engines: bool
    """Whether it has something to say with `engine`."""
    needs_all: bool
    """Whether it has to be given all entries, also those that the client has seen, because what it makes of one depends
    on those before. It is silent about them after `resume`."""

    @property
    def heartbeat(self) -> bytes:
        """What shows that the stream lives, if nothing else does."""

    def resume(self, seen: EventId) -> None:
        """Called first, if the client has seen something. Raises InvalidInput if this format has no such events."""

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:
        """The first bytes. `is_new`: the client has seen nothing of this generation yet."""

    def reconnect(self, retry_ms: int) -> bytes:
        """The last bytes of a stream that the client should resume elsewhere after `retry_ms`."""

    def token(self, n: int, data: bytes) -> bytes:
        """Entry n, which holds model output."""

    def text(self, n: int, text: bytes) -> bytes:
        """Entry n, whose output is this text and nothing else. The text is a JSON string, with its quotes."""

    def entry(self, entry: Entry) -> bytes:
        """Any entry, tokens included."""

    def queued(self, place: Queued) -> bytes:
        """Has no id, because it is not in the log."""

    def engine(self, state: EngineState) -> bytes:
        """The same."""

    def lost(self, error: EverstreamError) -> bytes:
        """The terminal event of a stream whose log can't supply one."""


def parse_event_id(text: str, param: str) -> EventId:
    """Raises InvalidInput."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{param} must be an event id of this service: <32 hex digits>.<number>", param=param)
    generation, n, part, signature = match.groups()
    return EventId(generation, None if n == GONE else int(n), int(part) if part else None, signature or "")
