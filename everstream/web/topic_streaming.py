"""Turns topics into a streamed response. Called by the routes of all APIs that have topics.

In: a subscription, where it starts, and an encoder. Out: a Flask response whose body is written as messages come.
"""

import logging

from flask import Response

from everstream.errors import EverstreamError, InternalError
from everstream.log.topic_records import Start, Subscription, TopicPage
from everstream.web.access.principal import principal
from everstream.web.access_log import StreamLine
from everstream.web.context import app_context
from everstream.web.open_reader import OpenReader
from everstream.web.open_streams import Heartbeat, StreamClient
from everstream.web.streaming import (
    Frames,
    bounded_connection,
    direct_writer,
    event_stream,
    is_eventsource,
    pieces,
    retry_ms,
)
from everstream.web.topic_follower import TopicFollower
from everstream.web.topic_reader import PresenceNews, TopicEncoder, TopicReader

logger = logging.getLogger(__name__)


def follow_topics(
    subscription: Subscription, start: Start, encoder: TopicEncoder, *, is_first: bool, presence: str = ""
) -> Response:
    """`is_first`: the client has seen nothing yet. `presence`: the name that others see; empty: none. Call it with a
    slot (`admitted`)."""
    context, client = app_context(), bounded_connection()
    context.follower.count("streams")
    context.follower.count("resumes", int(start.kind == "after" and start.number > 0))
    stream_client = StreamClient(principal().credential, direct_writer(client), is_eventsource(), presence)
    reader = TopicReader(subscription, start, encoder, context.settings.reader_queue_bytes, stream_client)
    opened = OpenReader(context.topic_follower, reader, client)
    head = encoder.start(retry_ms())
    return event_stream(_frames(head, opened, context.topic_follower, StreamLine(), is_first=is_first))


def _frames(
    head: bytes, opened: OpenReader[TopicReader], follower: TopicFollower, line: StreamLine, *, is_first: bool
) -> Frames:
    with opened as reader:
        encoder, is_over, ended, sent_bytes = reader.encoder, False, "left", len(head)
        try:
            yield head
            while not is_over and (item := follower.next(reader)) is not None:
                if isinstance(item, Heartbeat):
                    yield encoder.heartbeat
                    continue
                if isinstance(item, PresenceNews):
                    yield encoder.presence(*item)
                    continue
                is_over = _is_last(item, encoder)
                reader.mark_first()
                for piece in pieces(encoder.page(item, is_first=is_first)):
                    sent_bytes += len(piece)
                    yield piece
                is_first = False
            if is_over:
                ended = "closed"
            elif reader.is_drained:
                ended = "drained"
                yield encoder.reconnect(follower.streams.return_after_ms())
        except EverstreamError as error:
            ended = error.code
            yield encoder.lost(error)
        except OSError:
            # The client left.
            raise
        except Exception:
            logger.exception("a stream of topics failed")
            ended = InternalError.code
            yield encoder.lost(InternalError())
        finally:
            line.log(reader, ended, sent_bytes)


def _is_last(page: TopicPage, encoder: TopicEncoder) -> bool:
    return page.is_closed or (encoder.ends_at_reset and page.reset != "")
