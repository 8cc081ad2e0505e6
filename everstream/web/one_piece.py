"""Answers in one piece, for clients that can't read a stream. Called by the routes of APIs that have them.

In: a generation. Out: its end, after waiting for it as any reader does; then its outputs, read from the log page by
page, and a JSON response of any size. So an answer takes no more memory than a stream, and one that is cut shows it.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec
from flask import Response, request
from valkey.exceptions import ValkeyError

from everstream.errors import (
    EverstreamError,
    GenerationCancelled,
    LogFull,
    ModelUnavailable,
    ResponseCut,
    ShuttingDown,
    UnknownGeneration,
)
from everstream.log.entries import TOKEN, Entry
from everstream.log.web_log import READ_BYTES
from everstream.web.context import AppContext, app_context
from everstream.web.disconnect_watcher import DisconnectWatcher
from everstream.web.reader import Heartbeat, Queued
from everstream.web.sse import Encoder
from everstream.web.streaming import PIECE_BYTES, bounded_connection

_STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    ModelUnavailable.code: ModelUnavailable.status,
    LogFull.code: LogFull.status,
}
"""Of the codes that don't mean that the server or the model is at fault."""


class ClientLeft(EverstreamError):
    """Nobody will get the response."""

    status = 499
    code = "client_left"

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


def wait_for_end(encoder: Encoder, queue: str) -> Entry:
    """The terminal entry of the encoder's generation, `done`. Keeps none of the others. `queue` is its model's.

    Meanwhile the generation counts as being read, until the client leaves. Raises EverstreamError if the generation
    ends otherwise.
    """
    follower = app_context().follower
    connection = request.environ.get("gunicorn.socket")
    reader = follower.reader(encoder, 0, None, queue)
    watcher = DisconnectWatcher(connection, reader.leave) if connection else None
    follower.register(reader)
    try:
        if watcher:
            watcher.start()
        while (item := follower.next(reader)) is not None:
            if not isinstance(item, (Heartbeat, Queued)) and item[-1].is_terminal:
                return _succeeded(item[-1])
    finally:
        follower.unregister(reader)
        if watcher:
            watcher.stop()
    if follower.draining:
        raise ShuttingDown("this process is shutting down; send the request again")
    raise ClientLeft


def _succeeded(end: Entry) -> Entry:
    if end.event == "done":
        return end
    said = msgspec.json.decode(end.data)
    if end.event == "cancelled":
        raise GenerationCancelled(f"the generation was stopped before it ended ({said.get('reason')})")
    error = EverstreamError(said["message"], param=said.get("param"), code=said["code"])
    error.status = _STATUS.get(error.code, 400 if error.param else 500)
    raise error


def outputs(generation: str, last: int) -> Iterator[Entry]:
    """The generation's outputs up to entry `last`. Reads the first page at once. Raises UnknownGeneration."""
    context = app_context()
    return _outputs(context, generation, last, _page(context, generation, 0))


def _outputs(context: AppContext, generation: str, last: int, entries: list[Entry]) -> Iterator[Entry]:
    at = 0
    while entries:
        for entry in entries:
            if entry.event == TOKEN and entry.n <= last:
                yield entry
        at = entries[-1].n
        entries = [] if at >= last else _page(context, generation, at)


def _page(context: AppContext, generation: str, after: int) -> list[Entry]:
    (page,) = context.log.read([(generation, after)], READ_BYTES)
    if page is None or not page.entries:
        raise UnknownGeneration
    return page.entries


def json_response(pieces: Iterable[bytes]) -> Response:
    """A response with the JSON that these pieces make. What goes wrong after its first bytes cuts it."""
    rest, begun = iter(pieces), b""
    for piece in rest:
        begun += piece
        if len(begun) > PIECE_BYTES:
            bounded_connection()
            return Response(_small(_cut(chain([begun], rest))), mimetype="application/json")
    return Response(begun, mimetype="application/json")


def _cut(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except (ValkeyError, UnknownGeneration) as error:
        raise ResponseCut(f"the rest of the log can't be read: {error}") from None


def _small(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The send timeout applies to each, and a slow client needs that time for each."""
    for piece in pieces:
        for at in range(0, len(piece), PIECE_BYTES):
            yield piece[at : at + PIECE_BYTES]
