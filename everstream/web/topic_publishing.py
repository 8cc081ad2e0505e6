"""Publishes what a request brings to topics, whatever their content types. Called by the routes of all APIs that have
topics."""

from collections.abc import Callable, Sequence

from msgspec import UNSET

from everstream.errors import EverstreamError, InvalidInput
from everstream.log.topic_errors import ContentTypeConflict
from everstream.log.topic_records import JSON, Append, NewMessage, Producer, Published, name_of, owner_of
from everstream.web import publications
from everstream.web.context import app_context
from everstream.web.publications import MessageOptions, Publication
from everstream.web.topic_requests import made_by_publishing, payer

MakeMessages = Callable[[str], list[NewMessage]]
"""Messages for a topic of this content type. Raises InvalidInput."""


def publish_json(topic: str, found: list[Publication], producer: Producer | None) -> Published:
    """Raises InvalidInput, and whatever `TopicLog.publish` does."""
    content_type = _type_of(topic) if any(each.base64 is not UNSET for each in found) else JSON
    return _publish(topic, content_type, messages_of(found), producer, lambda _: True)


def publish_several(groups: Sequence[tuple[str, list[Publication]]]) -> list[Published | EverstreamError]:
    """The same for several topics, in one round trip if they are of JSON: for each, what happened or why not. Raises
    InvalidInput."""
    make, who = made_by_publishing(JSON), payer()
    appends = [Append(topic, messages_of(found)(JSON), JSON, make) for topic, found in groups]
    outcomes = app_context().topics.publish_all(appends, who)
    return [
        _again(*group) if isinstance(outcome, ContentTypeConflict) else outcome
        for group, outcome in zip(groups, outcomes, strict=True)
    ]


def _again(topic: str, found: list[Publication]) -> Published | EverstreamError:
    """Of a topic that is of another type."""
    try:
        return publish_json(topic, found, None)
    except EverstreamError as error:
        return error


def publish_body(
    topic: str, body: bytes, content_type: str, producer: Producer | None, options: MessageOptions
) -> Published:
    """One message: text or bytes. JSON topics take text, too. Raises the same."""
    if not publications.is_binary(content_type):
        publications.check_text(body)

    def make(_: str) -> list[NewMessage]:
        return [publications.new_message(publications.data_of_body(body, content_type), options)]

    def takes(kind: str) -> bool:
        return not publications.is_binary(content_type) and not publications.is_binary(kind)

    return _publish(topic, content_type, make, producer, takes)


def messages_of(found: list[Publication]) -> MakeMessages:
    return lambda content_type: [publications.message_of(each, content_type) for each in found]


def _publish(
    topic: str, content_type: str, make: MakeMessages, producer: Producer | None, takes: Callable[[str], bool]
) -> Published:
    """Most topics are of the type that the body has. Only if one is not, messages are made for its type."""

    def attempt(kind: str) -> Published:
        append = Append(topic, make(kind), kind, made_by_publishing(kind), producer=producer)
        return app_context().topics.publish(append, payer())

    try:
        return attempt(content_type)
    except ContentTypeConflict as conflict:
        if not takes(conflict.content_type):
            raise
        return attempt(conflict.content_type)


def _type_of(topic: str) -> str:
    known = app_context().topics.show(owner_of(topic), [name_of(topic)])[0]
    if known is None:
        raise InvalidInput(
            'base64 is for binary topics; make it first: PUT {"content_type": "application/octet-stream"}',
            param="base64",
        )
    return known.config.type
