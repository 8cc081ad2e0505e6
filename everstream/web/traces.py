"""A span for each request, until the last byte of its response, and one for the job that it submits. Called by
`factory`, `submission` and `access_log`.

A span names the route, not the address, and has nothing of what a request or a response contains.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flask import Response, g, request

from everstream.errors import EverstreamError, InternalError
from everstream.logs import SHOWN_DIGITS
from everstream.web import static_files
from everstream.web.context import app_context
from everstream.web.health_listener import PATHS
from everstream.web.request_ids import request_id

if TYPE_CHECKING:
    from everstream.otel import Span

HEADERS = ("traceparent", "tracestate")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})
"""A client may send any other, and by the semantic conventions those are `_OTHER`."""
SOUND_ENDS = frozenset({"done", "cancelled", "left", "drained"})


def begin() -> None:
    """For `before_request`, before anything that refuses a request."""
    tracing = app_context().tracing
    if tracing is None or request.path in PATHS or request.endpoint in static_files.ENDPOINTS:
        return
    method = request.method if request.method in METHODS else "_OTHER"
    attributes = {
        "http.request.method": method,
        "url.scheme": request.scheme,
        "everstream.request_id": request_id(),
    }
    if request.url_rule:
        attributes["http.route"] = request.url_rule.rule
    name = " ".join(("HTTP" if method == "_OTHER" else method, attributes.get("http.route", ""))).rstrip()
    caller = {header: given for header in HEADERS if (given := request.headers.get(header))}
    g.span = tracing.span(name, "server", caller, attributes)


def current() -> "Span | None":
    """That of the current request."""
    span: Span | None = g.get("span")
    return span


def trace_id(span: "Span | None") -> str | None:
    return span.trace_id if span else None


def finish(response: Response) -> None:
    """For `after_request`. The span ends with the response's body."""
    if (span := current()) is None:
        return
    span.set({"http.response.status_code": response.status_code})
    if generation := g.get("generation", ""):
        span.set({"everstream.generation": generation[:SHOWN_DIGITS]})
    if response.status_code >= InternalError.status:
        span.fail(str(response.status_code))
    if response.direct_passthrough:
        # The server closes the file, not the response.
        span.end()
    else:
        response.call_on_close(span.end)


def stream_ended(span: "Span", generation: str, ended: str, entries: int) -> None:
    """An event, because one response may have the streams of several generations. `ended`: as in the access log."""
    fields = {"everstream.generation": generation[:SHOWN_DIGITS], "everstream.ended": ended}
    span.add_event("stream_end", {**fields, "everstream.entries": entries})
    if ended not in SOUND_ENDS:
        span.fail(ended)


@contextmanager
def submitting(model: str) -> Iterator[dict[str, str]]:
    """The span of queueing a job. Yields the headers with which the engine continues the trace; none without traces."""
    tracing, parent = app_context().tracing, current()
    if tracing is None or parent is None:
        yield {}
        return
    parent.set({"gen_ai.request.model": model})
    attributes = {
        "messaging.system": "valkey",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": model,
        "gen_ai.request.model": model,
    }
    span = tracing.span(f"send {model}", "producer", parent, attributes)
    try:
        yield tracing.headers_of(span)
    except Exception as error:
        span.fail(error.code if isinstance(error, EverstreamError) else type(error).__name__)
        raise
    finally:
        span.end()
