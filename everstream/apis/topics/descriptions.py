"""What `GET /openapi.json` says about these routes, and what requests and responses may be."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from everstream.errors import ErrorBody, ErrorDetails, InvalidInput, LogFull, TooManyStreams, UnsupportedMediaType
from everstream.log.positions import POSITION
from everstream.log.presence import Named
from everstream.log.topic_errors import (
    ContentTypeConflict,
    ProducerFenced,
    ProducerGap,
    TopicClosed,
    TopicConflict,
    TopicGone,
    UnknownTopic,
)
from everstream.log.topic_names import MAX_CHARS, NAME
from everstream.log.topic_records import JSON
from everstream.web.description import BODY, READ, Answer, ApiDescription, Description, Fields, failures
from everstream.web.publications import MAX_ID_CHARS, MAX_INTEGER, MAX_MESSAGES
from everstream.web.topic_requests import MAX_LAST, MAX_TOPICS

Position = Annotated[str, Meta(pattern=f"^{POSITION}$")]


class TopicPath(Struct):
    name: Annotated[str, Meta(description="the topic's name", pattern=f"^{NAME}$", max_length=MAX_CHARS)]


class TopicOptions(Struct, forbid_unknown_fields=True):
    """`latest`: the newest message is the present state, and is sent to each new follower. `history`: how many messages
    are kept, the newest ones; without it all. `ttl_s`: the topic is forgotten when nobody has read or written it for so
    long."""

    content_type: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}(;.*)?$", max_length=200)
    ] = JSON
    latest: bool = False
    history: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=31_536_000)] | None = None


class NewTopicMessage(Struct):
    data: Any = UNSET
    base64: str | UnsetType = UNSET
    event: str | UnsetType = UNSET
    id: Annotated[str, Meta(max_length=MAX_ID_CHARS)] | UnsetType = UNSET
    ttl_s: float | UnsetType = UNSET


class MessageForTopic(NewTopicMessage, kw_only=True):
    topic: str


class ProducerHeaders(Struct, rename={"id": "Producer-Id", "epoch": "Producer-Epoch", "seq": "Producer-Seq"}):
    id: (
        Annotated[str, Meta(description="all three or none: a repeated request is not repeated in the topic")]
        | UnsetType
    ) = UNSET
    epoch: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET
    seq: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET


class Acknowledged(Struct):
    """`ids`: of each message, as its event has it; empty for a `duplicate` of a producer's request. `last`: of the
    topic's newest message."""

    topic: str
    ids: list[Position]
    last: Position
    duplicate: bool = False


class Outcome(Struct):
    """Either `ids` and `last`, as when one topic is published to, or the `error`."""

    topic: str
    ids: list[Position] | UnsetType = UNSET
    last: Position | UnsetType = UNSET
    error: ErrorDetails | UnsetType = UNSET


class SeveralAcknowledged(Struct):
    """What became of the messages of each topic, in the order in which they were given."""

    published: list[Outcome]


class TopicState(Struct):
    """`first`: the id of the oldest message that is kept; null: there is none. `last`: of the newest."""

    topic: str
    content_type: str
    messages: int
    bytes: int
    first: Position | None
    last: Position
    closed: bool
    latest: bool
    history: int | None
    ttl_s: int | None


class TopicList(Struct):
    """Those that were written last come first."""

    topics: list[TopicState]
    more: bool


class TopicPresence(Struct):
    """`followers`: how many streams follow it by its name. `present`: those that have given a name, each name once."""

    topic: str
    followers: int
    present: list[Named]


class PresenceQuery(Struct):
    topic: Annotated[str, Meta(pattern=f"^{NAME}$", max_length=MAX_CHARS)]


class FollowQuery(Struct):
    """Without any of these, a stream begins with what is published from now on."""

    last: Annotated[int, Meta(description="also the last messages", ge=1, le=MAX_LAST)] | UnsetType = UNSET
    since: Annotated[str, Meta(description="also those since a time: Unix seconds, or RFC 3339")] | UnsetType = UNSET
    last_event_id: Annotated[str, Meta(description="all that follow this event")] | UnsetType = UNSET
    format: Annotated[Literal["text"], Meta(description="the text itself as data")] | UnsetType = UNSET
    ping: Annotated[Literal["true", "false"], Meta(description="true: heartbeats are events")] | UnsetType = UNSET
    presence: (
        Annotated[str, Meta(description="a name that others see, and `presence` whenever this changes", max_length=64)]
        | UnsetType
    ) = UNSET


class SeveralTopicsQuery(FollowQuery, kw_only=True):
    topic: Annotated[list[str], Meta(description="names and patterns", max_length=MAX_TOPICS)] | UnsetType = UNSET
    prefix: Annotated[str, Meta(description="without topic: only names that begin like this")] | UnsetType = UNSET


class ResumeTopicHeader(Struct, rename={"last_event_id": "Last-Event-ID"}):
    last_event_id: Annotated[str, Meta(description="all that follow this event")] | UnsetType = UNSET


class Opened(Struct):
    topic: str | UnsetType = UNSET
    topics: list[str] | UnsetType = UNSET


class Reset(Struct):
    """What follows may not be contiguous with what the client has seen: those messages are not kept any more, or the
    log has lost them, or topics were deleted, or too many have changed."""

    reason: Literal["history", "lost", "deleted", "too_many_topics"]


class Closed(Struct):
    reason: Literal["closed"]


class TopicPing(Struct):
    interval_ms: int


class OfTopic(Struct):
    topic: str
    data: Raw


_EVENTS = {
    "open": Opened,
    "reset": Reset,
    "closed": Closed,
    "ping": TopicPing,
    "presence": TopicPresence,
    "failed": ErrorDetails,
}
_PUBLISH = (
    *BODY,
    *READ,
    *failures(LogFull, UnsupportedMediaType, TopicClosed, TopicGone, ContentTypeConflict, ProducerFenced, ProducerGap),
)
_FOLLOW = (*READ, *failures(InvalidInput, TooManyStreams))

DESCRIPTION = ApiDescription(
    "Topics: named logs of messages, for anything that is not a model's output. Each follower gets each message once, "
    "in order, over lost connections and restarts, as long as the topic keeps it.",
    {
        "make": Description(
            "Make a topic",
            {201: Answer("Made.", TopicState), 200: Answer("It was there, made the same way.", TopicState)},
            failures=(*BODY, *READ, *failures(LogFull, TopicConflict)),
            body=TopicOptions,
            body_is_optional=True,
            details="Publishing makes a topic, too, which keeps `EVERSTREAM_TOPIC_HISTORY` messages and is forgotten "
            "after `EVERSTREAM_TOPIC_RETENTION_S` without a reader or writer.",
        ),
        "publish": Description(
            "Publish messages",
            {200: Answer("They are in the log.", Acknowledged)},
            failures=_PUBLISH,
            headers=(ProducerHeaders,),
            body=NewTopicMessage,
            details=f"Or a list of up to {MAX_MESSAGES}. A body of another type is one message: text, or bytes.",
        ),
        "publish_to_several": Description(
            "Publish to several topics",
            {200: Answer("What became of each.", SeveralAcknowledged)},
            failures=_PUBLISH,
            body=MessageForTopic,
            details=f"Or a list of up to {MAX_MESSAGES}.",
        ),
        "follow": Description(
            "Follow a topic",
            {
                200: Answer("Its messages.", events={**_EVENTS, "message": Raw}),
                204: Answer("It was closed, and the client has seen all of it."),
            },
            failures=_FOLLOW,
            query=Fields((FollowQuery,)),
            headers=(ResumeTopicHeader,),
        ),
        "follow_several": Description(
            "Follow several topics, or list what there is",
            {200: Answer("Their messages; or, without topic, a list.", TopicList, {**_EVENTS, "message": OfTopic})},
            failures=_FOLLOW,
            query=Fields((SeveralTopicsQuery,)),
            headers=(ResumeTopicHeader,),
        ),
        "show_presence": Description(
            "Who follows a topic",
            {200: Answer("As of a few seconds ago.", TopicPresence)},
            failures=(*READ, *failures(InvalidInput)),
            query=Fields((PresenceQuery,)),
        ),
        "delete": Description(
            "Forget a topic and its messages",
            {204: Answer("It is gone.")},
            failures=(*READ, *failures(InvalidInput, UnknownTopic, TopicGone)),
        ),
    },
    ErrorBody,
    TopicPath,
)
