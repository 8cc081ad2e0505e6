"""Where a client wants to go on. Called by the routes of all APIs, and by `access`."""

from flask import request

from everstream.web import sse
from everstream.web.sse import EventId


def last_event_id() -> EventId | None:
    """The last event the client saw. EventSource sends the header; a new EventSource object can only use the query."""
    # If both are given, the header is newer: a page puts the id into the URL once, when it makes a new EventSource.
    header = request.headers.get("Last-Event-ID", "")
    if header:
        return sse.parse_event_id(header, "Last-Event-ID")
    query = request.args.get("last_event_id", "")
    return sse.parse_event_id(query, "last_event_id") if query else None
