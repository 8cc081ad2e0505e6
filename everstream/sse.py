"""The encoder of Server-Sent Events (WHATWG HTML, section 9.2). Pure: entries in, bytes out. `openai` has
another format.

All data is JSON, which has no line breaks, so each event has one `data` line and text survives to the letter. Event
ids are `<generation>.<n>`; only `[0-9a-z.]` gets into an `id` line.
"""

import re
from typing import Any, Protocol

import msgspec

from everstream.errors import EverstreamError, InvalidInput
from everstream.log import TOKEN, Entry

MIMETYPE = "text/event-stream"
GREETING = b": everstream\n"
HEARTBEAT = b": heartbeat\n\n"
GONE = "expired"
"""Stands for n in the id of an end that is not in the log: who comes back with it has seen it."""

_EVENT_ID = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,8}|expired)", re.ASCII)


def retry(milliseconds: int) -> bytes:
    """How long the browser waits before it reconnects."""
    return b"retry: %d\n\n" % milliseconds


def event(name: str, data: bytes, event_id: str = "") -> bytes:
    """One event; an empty name is the default event, `message`."""
    lines = [b"event: " + name.encode()] if name else []
    if event_id:
        lines.append(b"id: " + event_id.encode())
    return b"\n".join([*lines, b"data: " + data, b"", b""])


class Encoder(Protocol):
    """One generation in one format: what encoders of the same `generation` and `format` make of an entry is equal."""

    generation: str
    format: str
    heartbeat: bytes

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:
        """The first bytes; `is_new`: of a stream that has seen nothing yet."""

    def come_back(self, retry_ms: int) -> bytes:
        """The last bytes of a stream that is to be resumed elsewhere, after so long."""

    def token(self, n: int, data: bytes) -> bytes:
        """Entry n, which holds model output."""

    def entry(self, entry: Entry) -> bytes:
        """Any entry."""

    def queued(self, position: int) -> bytes:
        """Position 1 is claimed next; 0: an engine has it. Has no id: it is not in the log."""

    def lost(self, error: EverstreamError) -> bytes:
        """The end where the log can't give one."""


class Events:
    """Everstream's own format, for EventSource."""

    format = "events"
    heartbeat = HEARTBEAT

    def __init__(self, generation: str, model: str = "") -> None:
        self.generation = generation
        self._id = generation.encode()
        self._model = model

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:
        head = GREETING + retry(retry_ms)
        if not is_new:
            return head
        about = _json({"generation": self.generation, "model": self._model})
        return head + event("open", about, f"{self.generation}.0")

    def come_back(self, retry_ms: int) -> bytes:
        return retry(retry_ms)

    def token(self, n: int, data: bytes) -> bytes:
        return b"id: %b.%d\ndata: %b\n\n" % (self._id, n, data)

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        return event(entry.event, entry.data, f"{self.generation}.{entry.n}")

    def queued(self, position: int) -> bytes:
        return event("queued", _json({"position": position}))

    def lost(self, error: EverstreamError) -> bytes:
        return event("failed", _json({"code": error.code, "message": error.message}), f"{self.generation}.{GONE}")


def parse_event_id(text: str, param: str) -> tuple[str, int | None]:
    """The generation and the number of the last entry seen; None: such an end was seen. Raises InvalidInput."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{param} must be an event id of this service: <32 hex digits>.<number>", param=param)
    generation, n = match.groups()
    return generation, None if n == GONE else int(n)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
