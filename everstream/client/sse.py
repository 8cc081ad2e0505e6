"""A decoder for Server-Sent Events: bytes in, events out. Pure; it keeps to WHATWG HTML, sections 9.2.5 and 9.2.6."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from everstream.client.errors import InvalidStream

BOM = b"\xef\xbb\xbf"
MAX_RETRY_MS = 3_600_000
_LINE_END = re.compile(rb"\r\n|\n|\r")
_DIGITS = re.compile("[0-9]+")


class ServerSentEvent(NamedTuple):
    """`last_id` is what the standard calls the last event ID, which stays until an event changes it. `id` is the
    event's own; None: it has none."""

    type: str
    data: str
    last_id: str
    id: str | None


class Decoder:
    """Decodes one connection's bytes, in chunks of any size. `retry_ms`: the reconnection time, once one was sent.
    `last_id`: of the last block that is complete, which may have an id and no event."""

    def __init__(self, max_event_bytes: int) -> None:
        self.retry_ms: int | None = None
        self.last_id = ""
        self._max_event_bytes = max_event_bytes
        self._is_start = True
        self._after_cr = False
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._event_bytes = 0
        self._type = ""
        self._data: list[str] = []
        self._last_id = ""
        self._own_id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that this chunk completes; to be read to the end. Raises InvalidStream."""
        if not chunk:
            return
        if self._after_cr:
            # A CRLF that was split between two chunks ends one line, not two.
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        *ends, rest = _LINE_END.split(chunk)
        for end in ends:
            self._keep(end)
            event = self._end_line()
            if event is not None:
                yield event
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._line_bytes += len(part)
        if self._line_bytes + self._event_bytes > self._max_event_bytes:
            raise InvalidStream("event_too_large", f"an event is above {self._max_event_bytes} bytes")
        if part:
            self._line.append(part)

    def _end_line(self) -> ServerSentEvent | None:
        line = b"".join(self._line)
        self._line.clear()
        self._line_bytes = 0
        if self._is_start:
            line = line.removeprefix(BOM)
            self._is_start = False
        if not line:
            return self._dispatch()
        if not line.startswith(b":"):
            # No line end is part of a longer UTF-8 sequence, so lines can be decoded on their own.
            self._field(line.decode("utf-8", "replace"), len(line))
        return None

    def _field(self, line: str, size: int) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._last_id = self._own_id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            # Python refuses to convert thousands of digits.
            self.retry_ms = min(int(value.lstrip("0")[:10] or "0"), MAX_RETRY_MS)
            return
        else:
            return
        # Also a line without text takes memory.
        self._event_bytes += size + 1

    def _dispatch(self) -> ServerSentEvent | None:
        data, event_type, own_id = self._data, self._type, self._own_id
        self._data, self._type, self._own_id, self._event_bytes = [], "", None, 0
        self.last_id = self._last_id
        if not data:
            return None
        return ServerSentEvent(event_type or "message", "\n".join(data), self._last_id, own_id)
