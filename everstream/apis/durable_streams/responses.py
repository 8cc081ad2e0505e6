"""Responses to reads of Durable Streams, with their headers (sections 5.6, 5.7 and 10)."""

from typing import NamedTuple

from flask import Response, request

from everstream.apis.durable_streams.cdn_cursor import next_cursor
from everstream.apis.durable_streams.encoder import offset_text
from everstream.web.context import app_context

CACHE_S = 60


class Chunk(NamedTuple):
    """What was read. `stream`: an id of the stream, which no other of the same name has. `start` and `end`: offsets."""

    stream: str
    content_type: str
    body: bytes
    start: int
    end: int
    up_to_date: bool
    is_closed: bool

    @property
    def etag(self) -> str:
        return f'"{self.stream}:{self.start}:{self.end}{":c" if self.is_closed else ""}"'


def chunk_response(chunk: Chunk, *, cursor: str | None = None, is_cacheable: bool = True) -> Response:
    """`cursor`: the client's, in a live request."""
    headers = read_headers(chunk.end, up_to_date=chunk.up_to_date, is_closed=chunk.is_closed, cursor=cursor)
    if is_cacheable:
        whose = "private" if app_context().credentials.are_required else "public"
        headers |= {"ETag": chunk.etag, "Cache-Control": f"{whose}, max-age={CACHE_S}, stale-while-revalidate=300"}
        if chunk.etag in request.headers.get("If-None-Match", ""):
            return Response(status=304, headers=headers)
    return Response(chunk.body, content_type=chunk.content_type, headers=headers)


def nothing_new(offset: int, *, cursor: str, is_closed: bool) -> Response:
    """To a long poll."""
    return Response(status=204, headers=read_headers(offset, up_to_date=True, is_closed=is_closed, cursor=cursor))


def read_headers(offset: int, *, up_to_date: bool, is_closed: bool, cursor: str | None = None) -> dict[str, str]:
    headers = {"Stream-Next-Offset": offset_text(offset)}
    if up_to_date:
        headers["Stream-Up-To-Date"] = "true"
    if is_closed:
        headers["Stream-Closed"] = "true"
    elif cursor is not None:
        headers["Stream-Cursor"] = next_cursor(cursor)
    return headers
