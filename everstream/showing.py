"""One generation as a JSON object, however large: `GET /generations/<id>`. Called by `routes`.

In: a generation that the log knows, `?after=` and `?limit=`. Out: a Flask response. The log is read and the object
written a page at a time, so it takes no more memory than a stream. If the log fails midway, the connection ends in the
middle of the object's text.
"""

import re
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
from flask import Response, request
from valkey.exceptions import ValkeyError

from everstream import log
from everstream.errors import InvalidInput, ResponseCut, UnknownGeneration
from everstream.streaming import PIECE_BYTES, bounded_connection
from everstream.web import Web, web
from everstream.web_log import READ_BYTES

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)


class Stretch(msgspec.Struct, frozen=True):
    """The entries above `after`, up to `last`, of a log of `top`. `is_part`: a limit was given."""

    after: int
    last: int
    top: int
    is_part: bool


def show(known: log.Generation) -> Response:
    """The answer; one that takes more than a piece has a stream's place until it is sent.

    Raises InvalidInput, UnknownGeneration, TooManyStreams.
    """
    after, limit = _number("after", least=0) or 0, _number("limit", least=1)
    if request.method == "HEAD":
        return _response(iter(()))
    # The last entry of one that has ended is read in any case: it says how.
    page = _read(web(), known.id, after if known.state == "open" else min(after, known.top - 1))
    if page is None:
        raise UnknownGeneration
    last = page.top if limit is None else min(page.top, after + limit)
    pieces = _object(web(), known, Stretch(after, last, page.top, limit is not None), page.entries)
    if page.entries and page.entries[-1].n < last:
        return _streamed(pieces)
    whole = b"".join(pieces)
    return _response(whole) if len(whole) <= PIECE_BYTES else _streamed(iter([whole]))


def _number(name: str, *, least: int) -> int | None:
    texts = request.args.getlist(name)
    if not texts:
        return None
    if len(texts) > 1 or not _NUMBER.fullmatch(texts[0]) or int(texts[0]) < least:
        raise InvalidInput(f"{name} must be one whole number from {least} to 999999999", param=name)
    return int(texts[0])


def _streamed(pieces: Iterator[bytes]) -> Response:
    # Small, as a client that is slow has the send timeout for each, and not for all.
    small = (piece[at : at + PIECE_BYTES] for piece in pieces for at in range(0, len(piece), PIECE_BYTES))
    response = _response(small)
    response.call_on_close(web().follower.admit())
    bounded_connection()
    return response


def _response(body: bytes | Iterator[bytes]) -> Response:
    return Response(body, mimetype="application/json")


def _object(found: Web, known: log.Generation, stretch: Stretch, entries: list[log.Entry]) -> Iterator[bytes]:
    """The text comes before what is said of it, as its end is read last."""
    yield b'{"id":"%b","text":"' % known.id.encode()
    end = yield from _text(found, known.id, stretch, entries)
    said = msgspec.json.decode(end.data) if end else {}
    rest: dict[str, Any] = {
        "state": end.event if end else _state(found, known.id, stretch.top),
        "finish_reason": said.get("finish_reason"),
        "usage": said.get("usage"),
        "last": stretch.last,
    }
    if stretch.is_part:
        rest["more"] = stretch.last < stretch.top
    if "code" in said:
        rest["error"] = {"code": said["code"], "message": said["message"], "param": said.get("param")}
    yield b'",' + log.encode_json(rest)[1:] + b"\n"


def _text(
    found: Web, generation: str, stretch: Stretch, entries: list[log.Entry]
) -> Generator[bytes, None, log.Entry | None]:
    """The inside of a JSON string, page by page. Returns the terminal entry, if the stretch has it."""
    while entries:
        shown = [entry for entry in entries if entry.n <= stretch.last]
        piece = b"".join(_escaped(each.data) for each in shown if each.n > stretch.after and each.event == log.TOKEN)
        at, end = shown[-1].n, shown[-1] if shown[-1].is_terminal else None
        # A client that is slow keeps no more of the page than this piece.
        del entries, shown
        yield piece
        if at >= stretch.last:
            return end
        entries = _next(found, generation, at)
    return None


def _next(found: Web, generation: str, after: int) -> list[log.Entry]:
    """Raises ResponseCut, as the response has begun."""
    try:
        page = _read(found, generation, after)
    except ValkeyError as error:
        raise ResponseCut(f"the log (Valkey) can't be read: {error}") from None
    if page is None or not page.entries:
        raise ResponseCut("the log no longer has the rest")
    return page.entries


def _read(found: Web, generation: str, after: int) -> log.Page | None:
    found.follower.saw(generation)
    return found.log.read([(generation, after)], READ_BYTES)[0]


class _Output(msgspec.Struct, gc=False):
    text: msgspec.Raw = msgspec.Raw(b'""')


_output_decoder = msgspec.json.Decoder(_Output)


def _escaped(output: bytes) -> bytes:
    """An output's text as it stands in a JSON string; of a text that is none, its name in Python."""
    text = bytes(_output_decoder.decode(output).text)
    if not text.startswith(b'"'):
        text = log.encode_json(str(msgspec.json.decode(text)))
    return text[1:-1]


def _state(found: Web, generation: str, top: int) -> str:
    """Of a generation that has not ended, as far as it is shown."""
    return "running" if top or generation not in found.log.positions() else "queued"
