"""JSON responses of any size, written while the log is read. Called by the routes of APIs that have them.

In: a generation, of whose log a page at a time is read, and the pieces of JSON that an API makes of it. Out: a Flask
response. So it takes no more memory than a stream, and one that is cut shows it.
"""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import chain
from typing import Any

from flask import Response
from valkey.exceptions import ValkeyError

from everstream.errors import ResponseCut, UnknownGeneration
from everstream.log.entries import TOKEN, Entry, encode_json
from everstream.log.records import Page
from everstream.log.web_log import READ_BYTES
from everstream.web.context import AppContext
from everstream.web.streaming import PIECE_BYTES, bounded_connection

_MIMETYPE = "application/json"


def small_json(answer: Any, status: int = HTTPStatus.OK) -> Response:
    """A response that is made at once."""
    return Response(encode_json(answer) + b"\n", status=status, mimetype=_MIMETYPE)


def read_page(context: AppContext, generation: str, after: int) -> Page:
    """A page of the log, which is empty if nothing follows. Counts as reading. Raises UnknownGeneration."""
    context.follower.mark_read(generation)
    page = context.log.read([(generation, after)], READ_BYTES)[0]
    if page is None:
        raise UnknownGeneration
    return page


def next_entries(context: AppContext, generation: str, after: int) -> list[Entry]:
    """A page of entries that the log had before. Raises UnknownGeneration if it no longer has them."""
    page = read_page(context, generation, after)
    if not page.entries:
        raise UnknownGeneration
    return page.entries


def outputs(context: AppContext, generation: str, after: int, last: int) -> Iterator[Entry]:
    """The generation's outputs above entry `after`, up to `last`. Raises UnknownGeneration."""
    while after < last:
        for entry in next_entries(context, generation, after):
            after = entry.n
            if entry.event == TOKEN and after <= last:
                yield entry


def json_response(pieces: Iterable[bytes]) -> Response:
    """A response with the JSON that these pieces make: whole if it is small, else streamed.

    Raises what `pieces` raise in the first `PIECE_BYTES`.
    """
    rest, begun = iter(pieces), b""
    for piece in rest:
        begun += piece
        if len(begun) > PIECE_BYTES:
            return streamed_json(chain([begun], rest))
    return Response(begun, mimetype=_MIMETYPE)


def streamed_json(pieces: Iterable[bytes]) -> Response:
    """The same, whatever its size. What goes wrong from now on cuts it."""
    bounded_connection()
    return Response(in_small_pieces(_cut(pieces)), mimetype=_MIMETYPE)


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except ValkeyError as error:
        raise ResponseCut(f"the log (Valkey) can't be read: {error}") from None
    except UnknownGeneration:
        raise ResponseCut("the log no longer has the rest") from None


def in_small_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The send timeout applies to each, and a slow client needs that time for each."""
    for piece in pieces:
        for at in range(0, len(piece), PIECE_BYTES):
            yield piece[at : at + PIECE_BYTES]
