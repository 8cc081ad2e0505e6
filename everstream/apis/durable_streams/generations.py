"""A generation as a stream of JSON that can only be read: any client of Durable Streams follows an answer.

Each entry is one message, {"event", "data"}, named as in Everstream's own events: `message` has a model's output, and
`done`, `cancelled` or `failed` is the last. So an answer that was cut does not look finished. An offset is the number
of an entry.
"""

import re
from collections.abc import Sequence

from flask import Response, request

from everstream.apis.durable_streams.encoder import control, json_event, offset_text
from everstream.apis.durable_streams.requests import NOW, ReadRequest
from everstream.apis.durable_streams.responses import Chunk, chunk_response, nothing_new
from everstream.errors import EverstreamError, UnknownGeneration
from everstream.log.entries import TOKEN, Entry
from everstream.log.records import Generation
from everstream.log.topic_errors import PositionGone
from everstream.log.topic_records import JSON
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.event_encoder import EventEncoder
from everstream.web.json_response import read_page
from everstream.web.open_reader import OpenReader, connection
from everstream.web.open_streams import StreamClient
from everstream.web.sse import GENERATION_ID, GREETING, EngineState, EventId, Queued
from everstream.web.streaming import admitted, follow

_GENERATION = re.compile(GENERATION_ID, re.ASCII)


class GenerationEncoder(EventEncoder):
    """An `Encoder` in Durable Streams' events. `cursor`: the client's."""

    def __init__(self, known: Generation, cursor: str, after: int) -> None:
        super().__init__(known.id, known.model)
        self.format = f"durable/{cursor}"
        self._cursor, self._after, self._top = cursor, after, known.top

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - its clients know what to do
        return GREETING + (b"" if self._after < self._top else self._control(self._after))

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002
        return b""

    def token(self, n: int, data: bytes) -> bytes:
        return json_event([_message("message", data)]) + self._control(n)

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        end = control(entry.n, self._cursor, up_to_date=True, is_closed=entry.is_terminal)
        return json_event([_message(entry.event, entry.data)]) + end

    def queued(self, place: object) -> bytes:  # noqa: ARG002 - not in the log
        return b""

    def lost(self, error: EverstreamError) -> bytes:  # noqa: ARG002 - the next request is answered with it
        return b""

    def _control(self, n: int) -> bytes:
        return control(n, self._cursor, up_to_date=n >= self._top)


def read(generation: str, wanted: ReadRequest) -> Response:
    """Raises UnknownGeneration, PositionGone."""
    known = app_context().follower.lookup(generation, principal()) if _GENERATION.fullmatch(generation) else None
    if known is None:
        raise UnknownGeneration
    if request.method == "HEAD":
        return _head(known)
    after = wanted.position(known.top)
    if after > known.top:
        raise PositionGone(f"this generation ends at {offset_text(known.top)}", param="offset")
    if wanted.live == "sse":
        return admitted(lambda: _events(known, wanted.cursor, after))
    has_ended = known.state != "open" and after == known.top
    if wanted.live == "long-poll" and after == known.top and not has_ended:
        return admitted(lambda: _wait(known, wanted.cursor, after))
    if wanted.live == "long-poll" and has_ended:
        return nothing_new(after, cursor=wanted.cursor, is_closed=True)
    page = read_page(app_context(), known.id, after)
    up_to_date = not page.entries or page.entries[-1].n >= page.top
    chunk = _chunk(known, after, page.entries, up_to_date=up_to_date)
    cursor = wanted.cursor if wanted.live else None
    return chunk_response(chunk, cursor=cursor, is_cacheable=not wanted.live and wanted.offset != NOW)


def _head(known: Generation) -> Response:
    response = Response(content_type=JSON)
    response.headers["Stream-Next-Offset"] = offset_text(known.top)
    if known.state != "open":
        response.headers["Stream-Closed"] = "true"
    return response


def _events(known: Generation, cursor: str, after: int) -> Response:
    if known.state != "open" and after == known.top:
        end = control(after, cursor, up_to_date=True, is_closed=True)
        return Response(GREETING + end, mimetype="text/event-stream")
    encoder = GenerationEncoder(known, cursor, after)
    return follow(known, EventId(known.id, after if after else -1), lambda _: encoder)


def _wait(known: Generation, cursor: str, after: int) -> Response:
    context = app_context()
    client, encoder = StreamClient(principal().credential, can_return=True), GenerationEncoder(known, cursor, after)
    with OpenReader(
        context.follower, context.follower.reader(encoder, after, known.queue, client), connection()
    ) as reader:
        item = context.follower.next(reader)
        while isinstance(item, Queued | EngineState):
            item = context.follower.next(reader)
    if isinstance(item, list):
        return chunk_response(_chunk(known, after, item, up_to_date=True), cursor=cursor, is_cacheable=False)
    return nothing_new(after, cursor=cursor, is_closed=False)


def _chunk(known: Generation, after: int, entries: Sequence[Entry], *, up_to_date: bool) -> Chunk:
    body = b"[" + b",".join(_message(entry.event or "message", entry.data) for entry in entries) + b"]"
    end = entries[-1].n if entries else after
    has_ended = entries[-1].is_terminal if entries else known.state != "open" and after == known.top
    return Chunk(known.id, JSON, body, after, end, up_to_date=up_to_date, is_closed=has_ended)


def _message(event: str, data: bytes) -> bytes:
    return b'{"event":"%b","data":%b}' % (event.encode(), data)
