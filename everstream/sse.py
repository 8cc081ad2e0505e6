"""The encoder of Server-Sent Events (WHATWG HTML, section 9.2). Pure: entries in, bytes out.

All data is JSON, which has no line breaks, so each event has one `data` line and text survives to the letter. Event
ids are `<generation>.<n>`; only `[0-9a-z.]` gets into an `id` line.
"""

import re
from typing import Any

import msgspec

from everstream.errors import EverstreamError, InvalidInput
from everstream.log import Entry

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


def entry_event(generation: str, entry: Entry) -> bytes:
    if not entry.frame:
        entry.frame = event(entry.event, entry.data, f"{generation}.{entry.n}")
    return entry.frame


def open_event(generation: str, model: str) -> bytes:
    return event("open", _json({"generation": generation, "model": model}), f"{generation}.0")


def queued_event(position: int) -> bytes:
    """Position 1 is claimed next; 0: an engine has it. Has no id: it is not in the log."""
    return event("queued", _json({"position": position}))


def lost_event(generation: str, error: EverstreamError) -> bytes:
    """The end where the log can't give one."""
    return event("failed", _json({"code": error.code, "message": error.message}), f"{generation}.{GONE}")


def parse_event_id(text: str, param: str) -> tuple[str, int | None]:
    """The generation and the number of the last entry seen; None: such an end was seen. Raises InvalidInput."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{param} must be an event id of this service: <32 hex digits>.<number>", param=param)
    generation, n = match.groups()
    return generation, None if n == GONE else int(n)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
