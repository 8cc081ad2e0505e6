"""From a generation to a streamed response: start, resume, a second viewer. Called by the routes of both APIs.

In: a generation, the last entry seen, and an encoder. Out: a Flask response whose body is written as the generation
goes.
"""

import logging
import random
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Response, request, stream_with_context

from everstream import log, sse
from everstream.errors import EntriesLost, EverstreamError, RequestConflict, UnknownGeneration
from everstream.follower import Follower, Heartbeat, Queued, Reader
from everstream.outlet import Outlet
from everstream.sse import Encoder
from everstream.watcher import Watcher
from everstream.web import web

logger = logging.getLogger(__name__)

PIECE_BYTES = 16 << 10
SEND_BUFFER_BYTES = 64 << 10
"""The kernel takes twice that: what it holds for a client that does not read."""

MakeEncoder = Callable[[log.Generation], Encoder]


def is_eventsource() -> bool:
    return request.method == "GET" and sse.MIMETYPE in request.headers.get("Accept", "")


def last_event_id() -> tuple[str, int | None] | None:
    """What the client saw last: EventSource sends the header; a new EventSource object can only use the query."""
    # The header is the newer one where both are given: a page puts the id into the address once, when it reconnects.
    header = request.headers.get("Last-Event-ID", "")
    if header:
        return sse.parse_event_id(header, "Last-Event-ID")
    query = request.args.get("last_event_id", "")
    return sse.parse_event_id(query, "last_event_id") if query else None


def admitted(respond: Callable[[], Response]) -> Response:
    """A response that may be a stream: it has one of the worker's places until it is closed."""
    if request.method == "HEAD":
        # Flask answers HEAD with the GET route; a look at the headers must neither start nor follow a generation.
        return event_stream(iter(()))
    give_back = web().follower.admit()
    try:
        response = respond()
    except BaseException:
        give_back()
        raise
    response.call_on_close(give_back)
    return response


def resume(generation: str, after: int | None, encoder: MakeEncoder, digest: str = "") -> Response:
    """Follow on from entry `after`; None: the generation's expiry was seen. With a `digest` of inputs only if it was
    started with just these."""
    if after is None:
        return Response(status=204)
    known = web().follower.lookup(generation)
    if known is None:
        return _lost(log.Generation(generation, "", "", 0), UnknownGeneration(), encoder)
    if digest and known.digest not in ("", digest):
        raise RequestConflict(
            "Last-Event-ID is of an answer to another request; send the same body again, or no Last-Event-ID",
            param="Last-Event-ID",
            code="last_event_id_conflict",
        )
    if after > known.top:
        message = f"Last-Event-ID names entry {after}, but the log has only {known.top} of this generation"
        lost = EntriesLost(message, param="Last-Event-ID")
        if is_eventsource():
            return _lost(known, lost, encoder)
        raise lost
    if known.state != "open" and after == known.top:
        # By the standard, 204 stops EventSource for good.
        return Response(status=204)
    return follow(known, after, encoder)


def _lost(generation: log.Generation, error: UnknownGeneration | EntriesLost, encoder: MakeEncoder) -> Response:
    return event_stream(iter([sse.GREETING, encoder(generation).lost(error)]))


def bounded_connection() -> socket.socket | None:
    """The client's, whose buffer in the kernel is bounded from here on; None where the server shows none."""
    connection: socket.socket | None = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return connection


def follow(known: log.Generation, after: int, make_encoder: MakeEncoder) -> Response:
    """Stream a generation's entries above `after`; -1 has the encoder's start before them."""
    settings, follower, encoder = web().settings, web().follower, make_encoder(known)
    follower.counted["streams"] += 1
    follower.counted["resumes"] += after > 0
    # Spread a little: the clients of a process that was killed must not all come back in the same instant.
    retry_ms = random.randint(settings.retry_ms, settings.retry_ms * 3 // 2)  # noqa: S311
    head = encoder.start(retry_ms, is_new=after < 0)
    connection = bounded_connection()
    is_chunked = web().writes_straight and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    reader = follower.reader(encoder, max(after, 0), Outlet(connection) if connection and is_chunked else None)

    return event_stream(_frames(head, reader, follower, connection))


def _frames(head: bytes, reader: Reader, follower: Follower, connection: socket.socket | None) -> Iterator[bytes]:
    encoder, is_over = reader.encoder, False
    watcher = Watcher(connection, reader.leave) if connection else None
    follower.register(reader)
    try:
        yield head
        while not is_over and (said := follower.next(reader)) is not None:
            if isinstance(said, Heartbeat):
                yield encoder.heartbeat
            elif isinstance(said, Queued):
                yield encoder.queued(said.position)
            else:
                is_over = said[-1].is_terminal
                yield from _pieces([encoder.entry(entry) for entry in said])
        if follower.draining and not is_over:
            yield encoder.come_back(follower.return_after_ms())
    except EverstreamError as error:
        yield encoder.lost(error)
    except OSError:
        # The client has gone.
        raise
    except Exception:
        logger.exception("a stream of generation %s failed", reader.generation[:8])
        yield encoder.lost(EverstreamError("something went wrong in the server; its log has the details"))
    finally:
        follower.unregister(reader)
        if watcher:
            watcher.stop()


def _pieces(events: list[bytes]) -> Iterator[bytes]:
    """What is sent at a time. Small, as a client that is slow has the send timeout for each, and not for all."""
    piece = b""
    for event in events:
        piece += event
        while len(piece) > PIECE_BYTES:
            yield piece[:PIECE_BYTES]
            piece = piece[PIECE_BYTES:]
    if piece:
        yield piece


class EventStream(Response):
    """A response that the server iterates over itself: werkzeug's iterators around a body, which each stream would keep
    on its stack for as long as it lives, are for what is not bytes."""

    def get_app_iter(self, environ: dict[str, Any]) -> Iterable[bytes]:  # noqa: ARG002 - werkzeug's
        return self

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.response)  # type: ignore[arg-type]


def event_stream(frames: Iterator[bytes]) -> Response:
    response = EventStream(stream_with_context(frames), mimetype=sse.MIMETYPE)
    response.headers["X-Accel-Buffering"] = "no"
    return response
