"""Several generations in one response, for a client that has few connections: a browser allows six per host over
HTTP/1.1, for all of its tabs together. Called by `native.routes`.

In: the last event seen of each generation. Out: a Flask response in which their events are interleaved, each whole.
"""

import socket
from collections.abc import Iterator, Sequence

from flask import Response
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Queue

from everstream.errors import UnknownGeneration
from everstream.web import streaming
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.sse import EventId

MAX_TOGETHER = 32
EVENT_END = b"\n\n"


def follow_together(seen: Sequence[EventId], make_encoder: MakeEncoder) -> Response:
    """Stream what a client has not seen of each generation. One that has ended sends nothing more."""
    client = streaming.bounded_connection()
    parts = [part for each in seen if (part := _part(each, make_encoder, client))]
    # By the standard, 204 stops an EventSource for good.
    return streaming.event_stream(_joined(parts)) if parts else Response(status=204)


def _part(seen: EventId, make_encoder: MakeEncoder, client: socket.socket | None) -> Iterator[bytes] | None:
    """The events of one generation; None: the client has seen them all."""
    if seen.n is None:
        return None
    known = app_context().follower.lookup(seen.generation)
    if known is None:
        return streaming.lost(streaming.unknown(seen.generation), UnknownGeneration(), make_encoder)
    if error := streaming.entries_lost(known, seen.n):
        return streaming.lost(known, error, make_encoder)
    if streaming.has_seen_all(known, seen):
        return None
    return streaming.frames(known, seen, make_encoder(known), client, None)


def _joined(parts: Sequence[Iterator[bytes]]) -> Iterator[bytes]:
    # One piece: a slow client must slow down each part.
    pieces: Queue[bytes | None] = Queue(maxsize=1)
    turn, group = BoundedSemaphore(), Group()
    for part in parts:
        group.spawn(_send, part, pieces, turn)
    try:
        still_open = len(parts)
        while still_open:
            piece = pieces.get()
            if piece is None:
                still_open -= 1
            else:
                yield piece
    finally:
        group.kill()


def _send(part: Iterator[bytes], pieces: "Queue[bytes | None]", turn: BoundedSemaphore) -> None:
    """Put a part's pieces into the queue. No other part's turn comes within an event."""
    is_within = False
    for piece in part:
        if not is_within:
            turn.acquire()
        pieces.put(piece)
        # Data is JSON, so an empty line is the end of an event.
        is_within = not piece.endswith(EVENT_END)
        if not is_within:
            turn.release()
    pieces.put(None)
