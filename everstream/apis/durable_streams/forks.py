"""Where a fork leaves its source (section 4.2)."""

from typing import NamedTuple

from everstream.apis.durable_streams.encoder import body_of
from everstream.apis.durable_streams.requests import Fork, position_of
from everstream.errors import Forbidden, InvalidInput
from everstream.log.topic_errors import PositionGone, UnknownTopic
from everstream.log.topic_records import JSON, Message, NewMessage, Start, Subscription, name_of, owner_of
from everstream.log.web_log import READ_BYTES
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.publications import data_of_body, new_message
from everstream.web.topic_requests import topic_to_follow


class Anchor(NamedTuple):
    """The source's messages up to `position` are the fork's; then comes `partial`. `content_type`: of the fork."""

    source: str
    position: int
    partial: NewMessage | None
    content_type: str


def anchor_of(fork: Fork, content_type: str) -> Anchor:
    """`content_type`: what the request says; empty: the source's. Raises InvalidInput, UnknownTopic, Forbidden."""
    if not principal().may("read"):
        raise Forbidden("to fork a topic needs the scope read, too", param="Stream-Forked-From")
    source = topic_to_follow(fork.source)
    known = app_context().topics.show(owner_of(source), [name_of(source)])[0]
    if known is None:
        raise UnknownTopic("there is no such topic to fork", param="Stream-Forked-From")
    kind = known.config.type
    position = position_of(fork.offset) if fork.offset else known.top
    if not fork.sub_offset or known.is_deleted:
        return Anchor(source, position, None, content_type or kind)
    last = _following(source, position, fork.sub_offset if kind == JSON else 1)
    if kind == JSON:
        return Anchor(source, last.position, None, content_type or kind)
    body = body_of([last], kind)
    if len(body) < fork.sub_offset:
        raise _beyond()
    if len(body) == fork.sub_offset:
        return Anchor(source, last.position, None, content_type or kind)
    return Anchor(source, position, new_message(data_of_body(body[: fork.sub_offset], kind)), content_type or kind)


def _following(source: str, position: int, count: int) -> Message:
    """The message that is so many after the position. Raises InvalidInput, PositionGone."""
    subscription = Subscription(owner_of(source), (name_of(source),))
    while True:
        page = app_context().topics.read([(subscription, Start("after", position))], READ_BYTES)[0]
        if page.reset:
            raise PositionGone("the source no longer has what follows this offset", param="Stream-Fork-Offset")
        if count <= len(page.messages):
            return page.messages[count - 1]
        if not page.more:
            raise _beyond()
        position, count = page.position, count - len(page.messages)


def _beyond() -> InvalidInput:
    return InvalidInput("Stream-Fork-Sub-Offset is beyond what follows", param="Stream-Fork-Sub-Offset")
