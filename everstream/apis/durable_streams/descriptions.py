"""What `GET /openapi.json` says about these routes."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from everstream.apis.durable_streams.requests import MAX_MESSAGES, MAX_SEQUENCE_CHARS, OFFSET
from everstream.errors import ErrorBody, InvalidInput, LogFull, TooManyStreams, UnknownGeneration
from everstream.log.positions import POSITION
from everstream.log.topic_errors import (
    ContentTypeConflict,
    PositionGone,
    ProducerFenced,
    ProducerGap,
    SequenceConflict,
    TopicClosed,
    TopicConflict,
    TopicGone,
    UnknownTopic,
)
from everstream.log.topic_names import MAX_CHARS, NAME
from everstream.web.description import BODY, READ, Answer, ApiDescription, Description, Fields, failures
from everstream.web.publications import MAX_ID_CHARS, MAX_INTEGER
from everstream.web.sse import GENERATION_ID

Offset = Annotated[str, Meta(pattern=f"^{POSITION}$")]
Seconds = Annotated[int, Meta(ge=0, le=999_999_999_999)]
Closes = Annotated[Literal["true"], Meta(description="the stream ends with this request")]


class StreamPath(Struct):
    name: Annotated[str, Meta(description="the stream's name, a topic's", pattern=f"^{NAME}$", max_length=MAX_CHARS)]
    generation: Annotated[str, Meta(description="the generation's id", pattern=f"^{GENERATION_ID}$")]


class CreationHeaders(
    Struct,
    rename={
        "ttl": "Stream-TTL",
        "expires_at": "Stream-Expires-At",
        "closed": "Stream-Closed",
        "source": "Stream-Forked-From",
        "offset": "Stream-Fork-Offset",
        "sub_offset": "Stream-Fork-Sub-Offset",
    },
):
    ttl: Annotated[Seconds, Meta(description="forgotten after so many seconds without a use")] | UnsetType = UNSET
    expires_at: Annotated[str, Meta(description="forgotten at this RFC 3339 time; not with Stream-TTL")] | UnsetType = (
        UNSET
    )
    closed: Closes | UnsetType = UNSET
    source: (
        Annotated[str, Meta(description="the path of a stream of which to make a copy", pattern="^/v1/stream/.")]
        | UnsetType
    ) = UNSET
    offset: (
        Annotated[str, Meta(description="up to this offset; without it, all", pattern=f"^{POSITION}$")] | UnsetType
    ) = UNSET
    sub_offset: (
        Annotated[Seconds, Meta(description="and so many messages of JSON, or bytes of the next one, more")] | UnsetType
    ) = UNSET


class AppendHeaders(
    Struct,
    rename={
        "closed": "Stream-Closed",
        "sequence": "Stream-Seq",
        "producer": "Producer-Id",
        "epoch": "Producer-Epoch",
        "number": "Producer-Seq",
    },
):
    closed: Closes | UnsetType = UNSET
    sequence: (
        Annotated[str, Meta(description="must be above that of the last request", max_length=MAX_SEQUENCE_CHARS)]
        | UnsetType
    ) = UNSET
    producer: (
        Annotated[
            str,
            Meta(
                description="of an idempotent producer; with Producer-Epoch and Producer-Seq",
                min_length=1,
                max_length=MAX_ID_CHARS,
            ),
        ]
        | UnsetType
    ) = UNSET
    epoch: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET
    number: Annotated[int, Meta(ge=0, le=MAX_INTEGER)] | UnsetType = UNSET


class ReadQuery(Struct):
    offset: (
        Annotated[
            str,
            Meta(
                description="the last response's; -1: the beginning; now: what follows from now on",
                pattern=f"^({OFFSET})$",
            ),
        ]
        | UnsetType
    ) = UNSET
    live: (
        Annotated[
            Literal["long-poll", "sse"],
            Meta(description="wait for what comes next, once or for as long as the connection lasts; with offset"),
        ]
        | UnsetType
    ) = UNSET
    cursor: Annotated[str, Meta(description="the last live response's")] | UnsetType = UNSET


class Control(Struct, rename="camel"):
    """After each `data`: the offset to go on from. `stream_closed`: the stream has ended here."""

    stream_next_offset: Offset
    stream_cursor: str | UnsetType = UNSET
    stream_closed: Literal[True] | UnsetType = UNSET
    up_to_date: Literal[True] | UnsetType = UNSET


class GenerationMessage(Struct):
    """An entry: model output is a `message`; `done`, `cancelled` or `failed` is the last."""

    event: str
    data: Raw


_END = {
    "Stream-Next-Offset": "The offset to go on from.",
    "Stream-Closed": "The stream has ended here.",
}
_READ_HEADERS = {
    **_END,
    "Stream-Up-To-Date": "There is nothing after this yet.",
    "Stream-Cursor": "In a live response: to be sent back as `cursor`.",
    "ETag": "For `If-None-Match`.",
}
_PRODUCER = {
    "Producer-Epoch": "The producer's epoch.",
    "Producer-Seq": "Its highest sequence number.",
}
_NOTHING = Answer("Nothing came while a long poll waited.", headers=_READ_HEADERS)
_SAME = Answer("It is what `If-None-Match` names.", headers=_READ_HEADERS)

DESCRIPTION = ApiDescription(
    "The Durable Streams protocol: the same topics, for its clients. Generations can be read by it, too.",
    {
        "make": Description(
            "Make a stream, or a fork of one",
            {
                201: Answer("Made.", headers={**_END, "Location": "Its URL."}),
                200: Answer("It was there, made the same way.", headers=_END),
            },
            failures=(
                *BODY,
                *READ,
                *failures(LogFull, UnknownTopic, TopicConflict, ContentTypeConflict, PositionGone),
            ),
            headers=(CreationHeaders,),
            body=Any,
            body_is_optional=True,
            details="A body is what it begins with. Its type is the stream's; without one, `application/octet-stream`.",
        ),
        "append": Description(
            "Append to a stream, or close it",
            {
                200: Answer("A producer's request was appended.", headers=_END | _PRODUCER),
                204: Answer("Appended; or, from a producer, done before.", headers=_END | _PRODUCER),
            },
            failures=(
                *BODY,
                *READ,
                *failures(LogFull, UnknownTopic, TopicGone, TopicClosed, ContentTypeConflict, SequenceConflict),
                *failures(ProducerFenced, ProducerGap),
            ),
            headers=(AppendHeaders,),
            body=Any,
            body_is_optional=True,
            details=f"The body has the stream's type. Of JSON, each element of an array is a message, at most "
            f"{MAX_MESSAGES}. A body may be missing only with `Stream-Closed`.",
        ),
        "read": Description(
            "Read a stream",
            {
                200: Answer(
                    "What follows the offset; of JSON, an array of messages. With `live=sse`, events, whose data is "
                    "that array, or text, or base64 as `Stream-SSE-Data-Encoding` says.",
                    list[Any],
                    events={"data": str, "control": Control},
                    media="*/*",
                    headers={**_READ_HEADERS, "Stream-SSE-Data-Encoding": "`base64`: events have it for bytes."},
                ),
                204: _NOTHING,
                304: _SAME,
            },
            failures=(*READ, *failures(InvalidInput, UnknownTopic, TopicGone, PositionGone, TooManyStreams)),
            query=Fields((ReadQuery,)),
        ),
        "delete": Description(
            "Forget a stream",
            {204: Answer("It is gone.")},
            failures=(*READ, *failures(InvalidInput, UnknownTopic, TopicGone)),
        ),
        "read_generation": Description(
            "Read a generation as a stream of JSON",
            {
                200: Answer(
                    "The entries that follow the offset; with `live=sse`, events whose data is such an array.",
                    list[GenerationMessage],
                    events={"data": list[GenerationMessage], "control": Control},
                    headers=_READ_HEADERS,
                ),
                204: _NOTHING,
                304: _SAME,
            },
            failures=(*READ, *failures(InvalidInput, UnknownGeneration, PositionGone, TooManyStreams)),
            query=Fields((ReadQuery,)),
        ),
    },
    ErrorBody,
    StreamPath,
)
