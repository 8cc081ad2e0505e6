"""Turns a generation into a streamed response: start, resume, a second viewer. Called by the routes of all APIs.

In: a generation, the last entry seen, and an encoder. Out: a Flask response whose body is written as the generation
proceeds.
"""

import logging
import random
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from flask import Response, g, request, stream_with_context

from everstream.errors import (
    EntriesLost,
    EverstreamError,
    InternalError,
    InvalidInput,
    RequestConflict,
    UnknownGeneration,
)
from everstream.log.entries import Entry, compact, failure
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.access.principal import principal
from everstream.web.access_log import StreamLine
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.direct_writer import DirectWriter
from everstream.web.follower import Follower
from everstream.web.open_reader import OpenReader, connection
from everstream.web.open_streams import Heartbeat, StreamClient
from everstream.web.reader import Reader
from everstream.web.sse import Encoder, EngineState, EventId, Queued
from everstream.web.stream_slots import admit

logger = logging.getLogger(__name__)

PIECE_BYTES = 16 << 10
SEND_BUFFER_BYTES = 64 << 10
"""Bounds the data that the kernel holds for a client that does not read. The kernel doubles this value."""

Frames = Generator[bytes, None, None]
"""A stream's body. Closing it ends the stream."""
ChangeEntries = Callable[[list[Entry]], list[Entry]]


def is_eventsource() -> bool:
    return request.method == "GET" and sse.MIMETYPE in request.headers.get("Accept", "")


def admitted(respond: Callable[[], Response], *, has_compact: bool = False) -> Response:
    """Make a response that may be a stream. It holds one of the worker's stream slots until it is closed.

    `has_compact`: the route's query has the option `compact`, see `follow`. Raises InvalidInput.
    """
    if request.method == "HEAD":
        # Flask answers HEAD with the GET route, but HEAD must neither start nor follow a generation.
        return event_stream(iter(()))
    # Refuse it before anything starts.
    g.is_compact = has_compact and _wants_compact()
    give_back = admit()
    try:
        response = respond()
    except BaseException:
        give_back()
        raise
    response.call_on_close(give_back)
    return response


def _wants_compact() -> bool:
    """Whether text that was generated before the request should come in one event. Raises InvalidInput."""
    given = request.args.get("compact", "")
    if given not in ("", "true", "false"):
        raise InvalidInput("compact must be true or false", param="compact")
    return given == "true"


def resume(seen: EventId, encoder: MakeEncoder, digest: str = "") -> Response:
    """Follow a generation after what the client has seen of it. With a `digest`, only if the generation was started
    with those inputs."""
    after = seen.n
    if after is None:
        return Response(status=204)
    known = app_context().follower.lookup(seen.generation, principal())
    if known is None:
        return event_stream(lost(unknown(seen.generation), UnknownGeneration(), encoder))
    if digest and known.digest not in ("", digest):
        raise RequestConflict(
            "Last-Event-ID belongs to a different request; send that request's body again, or omit Last-Event-ID",
            param="Last-Event-ID",
            code="last_event_id_conflict",
        )
    if error := entries_lost(known, after):
        if is_eventsource():
            return event_stream(lost(known, error, encoder))
        raise error
    if has_seen_all(known, seen):
        # By the standard, 204 stops an EventSource for good.
        return Response(status=204)
    return follow(known, seen, encoder)


def entries_lost(known: Generation, after: int) -> EntriesLost | None:
    """If the client has seen entries that the log has not."""
    if after <= known.top:
        return None
    message = f"Last-Event-ID names entry {after}, but the log of this generation ends at entry {known.top}"
    return EntriesLost(message, param="Last-Event-ID")


def has_seen_all(known: Generation, seen: EventId) -> bool:
    return known.state != "open" and seen.n == known.top and seen.part is None


def unknown(generation: str) -> Generation:
    """What an encoder needs to say that the log has no such generation."""
    return Generation(generation, "", "", 0)


def lost(known: Generation, error: UnknownGeneration | EntriesLost, encoder: MakeEncoder) -> Frames:
    """The stream of a generation that can't be followed."""
    # Made now, because the stream may be read outside the request's context.
    return _frames_of(sse.GREETING, encoder(known).lost(error))


def _frames_of(*frames: bytes) -> Frames:
    yield from frames


def bounded_connection(send_buffer_bytes: int = SEND_BUFFER_BYTES) -> socket.socket | None:
    """The client's connection, with a bound on the kernel's send buffer; None if the server exposes none."""
    if (client := connection()) is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    return client


def begin(known: Generation, make_encoder: MakeEncoder) -> Response:
    """Stream a generation to a client that has seen nothing of it."""
    return follow(known, EventId(known.id, -1), make_encoder)


def begin_unless_refused(known: Generation, make_encoder: MakeEncoder) -> Response:
    """The same, but if the model refuses its inputs, raise that as an error, because the response has not begun yet.
    Wait for the first entry, but no longer than for a heartbeat, or for two if the queue moves."""
    context = app_context()
    follower, until = context.follower, time.monotonic() + context.settings.heartbeat_s
    waiting = follower.reader(make_encoder(known), 0, known.queue, StreamClient(principal().credential))
    with OpenReader(follower, waiting, connection()) as reader:
        item = follower.next(reader)
        # Each new position starts the wait for a heartbeat again.
        while isinstance(item, Queued) and time.monotonic() < until:
            item = follower.next(reader)
    if (
        isinstance(item, list)
        and item[0].event == "failed"
        and (error := failure(item[0])).status < HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        raise error
    return begin(known, make_encoder)


def follow(known: Generation, seen: EventId, make_encoder: MakeEncoder) -> Response:
    """Stream what a client has not seen of a generation. A new client also gets the opening event.

    If the client has asked for it with `compact`, text that was generated before the request comes in one event.
    """
    encoder, client = make_encoder(known), bounded_connection()
    writer = None if encoder.needs_all else direct_writer(client)
    return event_stream(frames(known, seen, encoder, client, writer))


def direct_writer(client: socket.socket | None) -> DirectWriter | None:
    """For the response to the current request; None: it needs gunicorn to write it."""
    is_chunked = app_context().writes_directly and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    return DirectWriter(client) if client and is_chunked else None


def frames(
    known: Generation, seen: EventId, encoder: Encoder, client: socket.socket | None, writer: DirectWriter | None
) -> Frames:
    """The body of such a response. `writer`: if live entries may go straight to the client."""
    follower = app_context().follower
    if not seen.is_first:
        encoder.resume(seen)
    follower.count("streams")
    follower.count("resumes", int(bool(seen.n) and not seen.is_first))
    head = encoder.start(retry_ms(), is_new=seen.is_first)
    reader_client = StreamClient(principal().credential, writer, can_return=is_eventsource())
    reader = follower.reader(encoder, _first_needed(encoder, seen), known.queue, reader_client)
    # Given all entries, an encoder must not have those that the client has seen joined with others.
    is_compact = g.get("is_compact", False) and (seen.is_first or not encoder.needs_all)
    change = compact if is_compact else list
    return _frames(head, OpenReader(follower, reader, client), follower, change, StreamLine())


def retry_ms() -> int:
    """How long the current request's client should wait before it reconnects. Random, because the clients of a killed
    process must not all do so at the same instant."""
    at_least = app_context().settings.retry_ms
    return random.randint(at_least, at_least * 3 // 2)  # noqa: S311


def _first_needed(encoder: Encoder, seen: EventId) -> int:
    """The number of the entry after which the encoder has to be given all."""
    if encoder.needs_all or not seen.n or seen.is_first:
        return 0
    return seen.n if seen.part is None else seen.n - 1


def _frames(
    head: bytes, opened: OpenReader[Reader], follower: Follower, change: ChangeEntries, line: StreamLine
) -> Frames:
    with opened as reader:
        encoder, is_over, ended, sent_bytes = reader.encoder, False, "left", len(head)
        try:
            yield head
            while not is_over and (item := follower.next(reader)) is not None:
                if isinstance(item, Heartbeat):
                    yield encoder.heartbeat
                elif isinstance(item, Queued):
                    yield encoder.queued(item)
                elif isinstance(item, EngineState):
                    yield encoder.engine(item)
                else:
                    is_over = item[-1].is_terminal
                    reader.mark_first()
                    for piece in pieces(map(encoder.entry, change(item))):
                        sent_bytes += len(piece)
                        yield piece
                    ended = item[-1].event if is_over else ended
            if reader.is_drained and not is_over:
                ended = "drained"
                yield encoder.reconnect(follower.streams.return_after_ms())
        except EverstreamError as error:
            ended = error.code
            yield encoder.lost(error)
        except OSError:
            # The client left.
            raise
        except Exception:
            logger.exception("a stream of generation %s failed", reader.generation[:8])
            ended = InternalError.code
            yield encoder.lost(InternalError())
        finally:
            entries = max(0, reader.cursor.last - reader.cursor.first)
            line.log(reader, ended, sent_bytes, entries=entries, generation=reader.generation)


def pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """Small pieces to send, because the send timeout applies to each, and a slow client needs that time for each."""
    # One event at a time, because each may be large; and small ones together.
    rest = b""
    for each in events:
        rest += each
        # At least one byte is left, so that the last piece is known to be the last.
        whole = max(len(rest) - 1, 0) // PIECE_BYTES * PIECE_BYTES
        for at in range(0, whole, PIECE_BYTES):
            yield Unfinished(rest[at : at + PIECE_BYTES])
        rest = rest[whole:]
    if rest:
        yield rest


class Unfinished(bytes):
    """A piece of a stream after which the same event may go on."""


class EventStream(Response):
    """A response that the server iterates over directly. Werkzeug wraps the body in iterators that only non-bytes need,
    and each stream would keep them on its stack for life."""

    def get_app_iter(self, environ: dict[str, Any]) -> Iterable[bytes]:  # noqa: ARG002 - werkzeug's signature
        return self

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.response)  # type: ignore[arg-type]


def event_stream(frames: Iterator[bytes]) -> Response:
    response = EventStream(stream_with_context(frames), mimetype=sse.MIMETYPE)
    response.headers["X-Accel-Buffering"] = "no"
    return response
