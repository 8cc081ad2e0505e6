"""Several generations in one response, for a client that has few connections: a browser allows six per host over
HTTP/1.1, for all of its tabs together. Called by `native.routes`.

In: the last event seen of each generation. Out: a Flask response in which their events are interleaved, each whole.
Each open generation takes one of the worker's stream slots until its own stream ends.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from flask import Response
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Group
from gevent.queue import Queue

from everstream.errors import UnknownGeneration
from everstream.web import streaming
from everstream.web.access.principal import principal
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.sse import EventId
from everstream.web.stream_slots import admit
from everstream.web.streaming import Frames

logger = logging.getLogger(__name__)

MAX_TOGETHER = 8


def follow_together(seen: Sequence[EventId], make_encoder: MakeEncoder) -> Response:
    """Stream what a client has not seen of each generation. One that has ended sends nothing more.

    Raises TooManyStreams.
    """
    client = streaming.bounded_connection()
    with ExitStack() as slots:
        parts = [part for each in seen if (part := _part(each, make_encoder, client, slots))]
        if not parts:
            # By the standard, 204 stops an EventSource for good.
            return Response(status=204)
        response = streaming.event_stream(joined(parts))
        response.call_on_close(slots.pop_all().close)
        return response


def _part(seen: EventId, make_encoder: MakeEncoder, client: socket.socket | None, slots: ExitStack) -> Frames | None:
    """The events of one generation; None: the client has seen them all."""
    if seen.n is None:
        return None
    known = app_context().follower.lookup(seen.generation, principal())
    if known is None:
        return streaming.lost(streaming.unknown(seen.generation), UnknownGeneration(), make_encoder)
    if error := streaming.entries_lost(known, seen.n):
        return streaming.lost(known, error, make_encoder)
    if streaming.has_seen_all(known, seen):
        return None
    slot = ExitStack()
    slot.callback(admit())
    slots.callback(slot.close)
    return _releasing(streaming.frames(known, seen, make_encoder(known), client, None), slot.close)


def _releasing(frames: Frames, release: Callable[[], None]) -> Frames:
    """`release` may be called twice."""
    try:
        yield from frames
    finally:
        release()


def joined(parts: Sequence[Frames]) -> Frames:
    # One piece: a slow client must slow down each part.
    pieces: Queue[bytes | None] = Queue(maxsize=1)
    turn, group, is_over = BoundedSemaphore(), Group(), Event()
    for part in parts:
        group.spawn(_send, part, pieces, turn, is_over)
    try:
        still_open = len(parts)
        while still_open:
            piece = pieces.get()
            if piece is None:
                still_open -= 1
            else:
                yield piece
    finally:
        is_over.set()
        group.kill()


def _send(part: Frames, pieces: "Queue[bytes | None]", turn: BoundedSemaphore, is_over: Event) -> None:
    """Put a part's pieces into the queue, and None at its end. No other part's turn comes within an event.

    `is_over`: nobody takes anything from the queue any more.
    """
    has_turn = False
    try:
        for piece in part:
            if not has_turn:
                turn.acquire()
            has_turn = isinstance(piece, streaming.Unfinished)
            try:
                pieces.put(piece)
            finally:
                if not has_turn:
                    turn.release()
    except Exception:
        # The others go on.
        logger.exception("a part of a joined stream failed")
        if has_turn:
            turn.release()
    finally:
        part.close()
    if not is_over.is_set():
        pieces.put(None)
