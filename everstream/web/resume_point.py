"""Where a client wants to go on. Called by the routes of all APIs, and by `access`."""

import re
from typing import NamedTuple

from flask import request

from everstream.errors import InvalidInput
from everstream.log.positions import POSITION
from everstream.web import sse
from everstream.web.sse import EventId

_POSITION = re.compile(rf"({POSITION})(?:\.([0-9a-f]{{32}}))?", re.ASCII)


class SeenPosition(NamedTuple):
    """The last event of topics that a client has seen. `signature`: see `access.signed`."""

    position: int
    signature: str


def last_event_id() -> EventId | None:
    """The last event the client saw. EventSource sends the header; a new EventSource object can only use the query."""
    # If both are given, the header is newer: a page puts the id into the URL once, when it makes a new EventSource.
    header = request.headers.get("Last-Event-ID", "")
    if header:
        return sse.parse_event_id(header, "Last-Event-ID")
    query = request.args.get("last_event_id", "")
    return sse.parse_event_id(query, "last_event_id") if query else None


def last_position() -> SeenPosition | None:
    """The same for a stream of topics. Raises InvalidInput."""
    for param, text in (
        ("Last-Event-ID", request.headers.get("Last-Event-ID", "")),
        ("last_event_id", request.args.get("last_event_id", "")),
    ):
        if text:
            if not (match := _POSITION.fullmatch(text)):
                raise InvalidInput(f"{param} must be the id of an event of a topic: 16 digits", param=param)
            return SeenPosition(int(match[1]), match[2] or "")
    return None
