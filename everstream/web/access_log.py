"""One line per request, and one per stream's end. Called by `factory` and `streaming`.

A line names the route, not the address, which may hold prompts and ids.
"""

import logging
import time
from typing import Any

from flask import Response, g, has_request_context, request

from everstream.log.counters import field
from everstream.logs import ACCESS, SHOWN_DIGITS, access_line
from everstream.web import traces
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.health_listener import is_check
from everstream.web.open_streams import OpenStream
from everstream.web.request_ids import request_id

logger = logging.getLogger(ACCESS)


def start_clock() -> None:
    """For `before_request`, before anything else."""
    g.started = time.monotonic()


def elapsed_ms() -> int:
    """Since the current request began."""
    started: float = g.started
    return round((time.monotonic() - started) * 1000)


def log_request(response: Response) -> None:
    route = request.url_rule.rule if request.url_rule else None
    fields = {
        "event": "request",
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "ms": elapsed_ms(),
        "bytes": response.content_length,
        **_who(),
    }
    is_routine = request.path == "/healthz" or is_check()
    access_line(logger, fields, level=logging.DEBUG if is_routine else logging.INFO)
    # Unknown addresses count as one route, and so do methods that none has.
    method = request.method if route else "any"
    app_context().follower.count(field("http_requests", method, route or "none", str(response.status_code)))


class StreamLine:
    """The line of a stream's end. Made during the request, because a stream may end outside of its context."""

    # A process has thousands: a dict would take a quarter of a kilobyte each.
    __slots__ = ("_key", "_request_id", "_route", "_span", "_started")

    def __init__(self) -> None:
        self._started: float = g.started
        self._route = request.url_rule.rule if request.url_rule else None
        self._key, self._request_id, self._span = principal().name or None, request_id(), traces.current()

    def log(
        self, stream: OpenStream, ended: str, sent_bytes: int, *, entries: int | None = None, generation: str = ""
    ) -> None:
        """`ended`: the terminal event, or `left`, `drained`, or an error's code."""
        first_at = stream.first_sent_at
        fields = {
            "event": "stream_end",
            "route": self._route,
            "ended": ended,
            "ms": round((time.monotonic() - self._started) * 1000),
            "ttft_ms": round((first_at - self._started) * 1000) if first_at else None,
            "bytes": sent_bytes + stream.direct_bytes,
            "entries": entries,
            "key": self._key,
            "generation": generation[:SHOWN_DIGITS] or None,
            "request_id": self._request_id,
            "trace_id": traces.trace_id(self._span),
        }
        access_line(logger, fields)
        if self._span:
            traces.stream_ended(self._span, generation, ended, entries or 0)


def context() -> dict[str, Any]:
    """What every line of a web process has that is logged during a request."""
    if not has_request_context():
        return {}
    return {name: value for name, value in _who().items() if value is not None}


def _who() -> dict[str, Any]:
    generation = g.get("generation", "")
    return {
        "key": principal().name or None if "principal" in g else None,
        "generation": generation[:SHOWN_DIGITS] or None,
        "request_id": request_id(),
        "trace_id": traces.trace_id(traces.current()),
    }
