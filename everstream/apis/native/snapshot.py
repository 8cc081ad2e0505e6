"""One generation as a JSON object of any size: `GET /generations/<id>`. Called by `routes`.

In: a generation that the log knows, `?after=` and `?limit=`. Out: a Flask response. The log is read and the object
written one page at a time, so it takes no more memory than a stream. If the log fails midway, the connection ends in
the middle of the object.

A generation whose outputs are more than a `text` each has `outputs` too. Its log is then read twice, because a JSON
object can't be written in two places at once.
"""

import re
from collections.abc import Generator, Iterator
from typing import Any

import msgspec
from flask import Response, request

from everstream.errors import InvalidInput
from everstream.log.entries import TOKEN, Entry, encode_json, text_literal
from everstream.log.records import Generation
from everstream.web.context import AppContext, app_context
from everstream.web.json_response import json_response, next_entries, outputs, read_page, streamed_json
from everstream.web.sse import MAX_NUMBER, NUMBER
from everstream.web.stream_slots import admit

_NUMBER = re.compile(NUMBER, re.ASCII)


class EntryRange(msgspec.Struct, frozen=True):
    """The entries above `after`, up to `last`, of a log that ends at `top`. `is_limited`: the request gave a limit.

    `has_outputs`: the outputs are shown as they are, besides their text.
    """

    after: int
    last: int
    top: int
    is_limited: bool
    has_outputs: bool


def show(known: Generation) -> Response:
    """The response. If it is above `PIECE_BYTES`, or has outputs, it holds a stream slot until it is sent.

    Raises InvalidInput, UnknownGeneration, TooManyStreams.
    """
    after, limit = _number("after", least=0) or 0, _number("limit", least=1)
    if request.method == "HEAD":
        return Response(iter(()), mimetype="application/json")
    # Always read the last entry of an ended generation: it says how the generation ended.
    page = read_page(app_context(), known.id, after if known.state == "open" else min(after, known.top - 1))
    last = page.top if limit is None else min(page.top, after + limit)
    has_outputs = _has_more_than_text(app_context(), known.id, page.entries)
    entry_range = EntryRange(after, last, page.top, limit is not None, has_outputs)
    pieces = _object(app_context(), known, entry_range, page.entries)
    is_long = has_outputs or (page.entries and page.entries[-1].n < last)
    response = streamed_json(pieces) if is_long else json_response([b"".join(pieces)])
    if response.is_streamed:
        response.call_on_close(admit())
    return response


def _number(name: str, *, least: int) -> int | None:
    texts = request.args.getlist(name)
    if not texts:
        return None
    if len(texts) > 1 or not _NUMBER.fullmatch(texts[0]) or int(texts[0]) < least:
        raise InvalidInput(f"{name} must be one whole number from {least} to {MAX_NUMBER}", param=name)
    return int(texts[0])


def _object(context: AppContext, known: Generation, entry_range: EntryRange, entries: list[Entry]) -> Iterator[bytes]:
    """The text comes before the fields about it, because they depend on the terminal entry, which is read last."""
    yield b'{"id":"%b","text":"' % known.id.encode()
    end = yield from _text(context, known.id, entry_range, entries)
    said = msgspec.json.decode(end.data) if end else {}
    rest: dict[str, Any] = {
        "state": end.event if end else _state(context, known, entry_range.top),
        "finish_reason": said.get("finish_reason"),
        "usage": said.get("usage"),
        "last": entry_range.last,
    }
    if entry_range.is_limited:
        rest["more"] = entry_range.last < entry_range.top
    if "code" in said:
        rest["error"] = {"code": said["code"], "message": said["message"], "param": said.get("param")}
    yield b'",' + encode_json(rest)[1:-1]
    if entry_range.has_outputs:
        yield b',"outputs":['
        separator = b""
        for entry in outputs(context, known.id, entry_range.after, entry_range.last):
            yield separator + entry.data
            separator = b","
        yield b"]"
    yield b"}\n"


def _text(
    context: AppContext, generation: str, entry_range: EntryRange, entries: list[Entry]
) -> Generator[bytes, None, Entry | None]:
    """The inside of a JSON string, page by page. Returns the terminal entry if it is in the range."""
    while entries:
        shown = [entry for entry in entries if entry.n <= entry_range.last]
        piece = b"".join(_escaped(each.data) for each in shown if each.n > entry_range.after and each.event == TOKEN)
        at, end = shown[-1].n, shown[-1] if shown[-1].is_terminal else None
        # A slow client must keep no more of the page in memory than this piece.
        del entries, shown
        yield piece
        if at >= entry_range.last:
            return end
        entries = next_entries(context, generation, at)
    return None


def _has_more_than_text(context: AppContext, generation: str, entries: list[Entry]) -> bool:
    """By the first output of the log, so that it is the same for every range. `entries` may be the log's beginning."""
    if not entries or entries[0].n > 1:
        entries = _first_entries(context, generation, 0)
    while entries:
        for entry in entries:
            if entry.event == TOKEN:
                output = msgspec.json.decode(entry.data)
                return len(output) != 1 or not isinstance(output.get("text"), str)
        entries = _first_entries(context, generation, entries[-1].n)
    return False


def _first_entries(context: AppContext, generation: str, after: int) -> list[Entry]:
    page = context.log.read([(generation, after)], 1)[0]
    return page.entries if page else []


def _escaped(output: bytes) -> bytes:
    """An output's text as the inside of a JSON string. Text of another type goes through `str`; no text is empty."""
    text = text_literal(output)
    if text is None:
        value = msgspec.json.decode(output)
        text = encode_json(str(value["text"])) if "text" in value else b'""'
    return text[1:-1]


def _state(context: AppContext, known: Generation, top: int) -> str:
    """The state of a generation that does not end within the shown range."""
    return "running" if top or known.id not in context.log.positions(known.queue) else "queued"
