"""One line per request, and one per stream's end. Called by `factory` and `streaming`.

A line names the route, not the address, which may hold prompts and ids.
"""

import logging
import time
from typing import Any

from flask import Response, g, has_request_context, request

from everstream.log.counters import field
from everstream.logs import ACCESS, SHOWN_DIGITS, access_line
from everstream.web.access.principal import principal
from everstream.web.clients import came_to
from everstream.web.context import app_context
from everstream.web.reader import Reader
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
    is_check = request.path == "/healthz" or came_to(app_context().settings.health_port)
    fields = {
        "event": "request",
        "method": request.method,
        "route": request.url_rule.rule if request.url_rule else None,
        "status": response.status_code,
        "ms": elapsed_ms(),
        "bytes": response.content_length,
        **_who(),
    }
    access_line(logger, fields, level=logging.DEBUG if is_check else logging.INFO)
    # Unknown addresses count as one route, and so do methods that none has.
    route = fields["route"] or "none"
    method = request.method if request.url_rule else "any"
    app_context().follower.count(field("http_requests", method, str(route), str(response.status_code)))


def log_stream(reader: Reader, ended: str, sent_bytes: int) -> None:
    """`ended`: the terminal event, or `left`, `drained`, or an error's code."""
    first_at = reader.first_sent_at
    fields = {
        "event": "stream_end",
        "route": request.url_rule.rule if request.url_rule else None,
        "ended": ended,
        "ms": elapsed_ms(),
        "ttft_ms": round((first_at - g.started) * 1000) if first_at else None,
        "bytes": sent_bytes + reader.direct_bytes,
        "entries": max(0, reader.cursor.last - reader.cursor.first),
        **_who(),
        "generation": reader.generation[:SHOWN_DIGITS],
    }
    access_line(logger, fields)


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
    }
