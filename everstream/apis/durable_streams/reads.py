"""Reads of a topic: what there is, what comes next, and all that comes (sections 5.5 to 5.8)."""

from http import HTTPStatus

from flask import Response

from everstream.apis.durable_streams.encoder import DurableEncoder, body_of, offset_text
from everstream.apis.durable_streams.requests import NOW, ReadRequest
from everstream.apis.durable_streams.responses import Chunk, chunk_response, nothing_new
from everstream.log.topic_errors import PositionGone, TopicGone, UnknownTopic
from everstream.log.topic_records import Start, Subscription, Topic, TopicPage
from everstream.log.web_log import READ_BYTES
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.open_reader import OpenReader, connection
from everstream.web.open_streams import StreamClient
from everstream.web.publications import is_binary
from everstream.web.sse import MIMETYPE
from everstream.web.streaming import admitted
from everstream.web.topic_reader import TopicReader
from everstream.web.topic_streaming import follow_topics


def head(name: str) -> Response:
    known = _known(name)
    response = Response(status=HTTPStatus.OK, content_type=known.config.type)
    response.headers["Stream-Next-Offset"] = offset_text(known.top)
    if known.config.ttl_s is not None:
        response.headers["Stream-TTL"] = str(known.config.ttl_s)
    if known.config.expires_at:
        response.headers["Stream-Expires-At"] = known.config.expires_at
    if known.is_closed:
        response.headers["Stream-Closed"] = "true"
    response.headers["Cache-Control"] = "no-store"
    return response


def read(name: str, wanted: ReadRequest) -> Response:
    """Raises UnknownTopic, TopicGone, PositionGone."""
    known = _known(name)
    if wanted.live == "sse":
        return admitted(lambda: _events(known, wanted))
    position = wanted.position(known.top)
    page = _page(known, position)
    if wanted.live == "long-poll":
        if page.messages or page.more:
            return chunk_response(_chunk(known, position, page), cursor=wanted.cursor, is_cacheable=False)
        return admitted(lambda: _wait(known, position, wanted.cursor))
    return chunk_response(_chunk(known, position, page), is_cacheable=wanted.offset != NOW)


def _known(name: str) -> Topic:
    known = app_context().topics.show(principal().owner, [name])[0]
    if known is None:
        raise UnknownTopic
    if known.is_deleted:
        raise TopicGone
    return known


def _page(known: Topic, position: int) -> TopicPage:
    page = app_context().topics.read([(_subscription(known), Start("after", position))], READ_BYTES)[0]
    if page.reset:
        raise PositionGone("the topic no longer has what follows this offset", param="offset")
    return page


def _subscription(known: Topic) -> Subscription:
    return Subscription(principal().owner, (known.name,))


def _chunk(known: Topic, position: int, page: TopicPage) -> Chunk:
    kind = known.config.type
    end = page.messages[-1].position if page.messages else _end_of(page, position, known)
    body = body_of(page.messages, kind)
    return Chunk(str(known.born), kind, body, position, end, up_to_date=not page.more, is_closed=page.is_closed)


def _end_of(page: TopicPage, position: int, known: Topic) -> int:
    """Of a page without messages: it was read after `known`, so unless there is more there are none up to its top."""
    return page.position if page.more else max(position, known.top)


def _wait(known: Topic, position: int, cursor: str) -> Response:
    """Until there are messages, or the topic ends, or for as long as no stream is silent."""
    context, start = app_context(), Start("after", position)
    client = StreamClient(principal().credential, can_return=True)
    encoder = DurableEncoder(known.config.type, cursor, position)
    waiting = TopicReader(_subscription(known), start, encoder, context.settings.reader_queue_bytes, client)
    with OpenReader(context.topic_follower, waiting, connection()) as reader:
        page = context.topic_follower.next(reader)
        while isinstance(page, TopicPage) and not page.messages and not page.is_closed and not page.reset:
            page = context.topic_follower.next(reader)
    if not isinstance(page, TopicPage):
        return nothing_new(max(position, known.top), cursor=cursor, is_closed=False)
    if page.reset:
        raise PositionGone("the topic no longer has what follows this offset", param="offset")
    if page.messages:
        return chunk_response(_chunk(known, position, page), cursor=cursor, is_cacheable=False)
    return nothing_new(max(position, known.top), cursor=cursor, is_closed=page.is_closed)


def _events(known: Topic, wanted: ReadRequest) -> Response:
    position = wanted.position(known.top)
    # If there are messages, their positions count.
    encoder = DurableEncoder(known.config.type, wanted.cursor, max(position, known.top))
    response = follow_topics(_subscription(known), Start("after", position), encoder, is_first=True)
    response.content_type = MIMETYPE
    response.headers["Cache-Control"] = "no-cache, no-store"
    if is_binary(known.config.type):
        response.headers["Stream-SSE-Data-Encoding"] = "base64"
    return response
