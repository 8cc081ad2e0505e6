"""What `GET /openapi.json` says about these routes."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.native.model_json import ModelJson
from everstream.errors import ErrorBody, ErrorDetails, InvalidInput, TooManyStreams, UnknownGeneration
from everstream.web.description import (
    BODY,
    FOLLOW,
    READ,
    START,
    Answer,
    ApiDescription,
    Description,
    Failure,
    Fields,
    all_inputs,
    failures,
)
from everstream.web.joined_streams import MAX_TOGETHER
from everstream.web.shared_types import (
    OPTIONS,
    OWN_EVENTS,
    CompactQuery,
    FormatQuery,
    Queued,
    ResumeHeader,
    ResumeQuery,
    Stopped,
)
from everstream.web.sse import EVENT_ID, GENERATION_ID, MAX_NUMBER


class GenerationPath(Struct):
    generation: Annotated[str, Meta(description="the generation's id", pattern=f"^{GENERATION_ID}$")]


class RangeQuery(Struct):
    after: Annotated[int, Meta(description="only what follows this entry", ge=0, le=MAX_NUMBER)] | UnsetType = UNSET
    limit: Annotated[int, Meta(description="at most this many entries", ge=1, le=MAX_NUMBER)] | UnsetType = UNSET


class PingQuery(Struct):
    ping: (
        Annotated[
            Literal["true", "false"],
            Meta(description="true: `ping` instead of comments as heartbeats, and `engine`; only without `format`"),
        ]
        | UnsetType
    ) = UNSET


class SeveralQuery(Struct):
    generation: Annotated[
        list[Annotated[str, Meta(pattern=f"^(?:{GENERATION_ID}|{EVENT_ID})$")]],
        Meta(
            description="a generation's id, or that of the last event seen of it",
            min_length=1,
            max_length=MAX_TOGETHER,
        ),
    ]


class QueuedOf(Queued):
    generation: str | UnsetType = UNSET


class Ping(Struct):
    """Sent first, and whenever nothing else was sent for `interval_ms`. The first has the number of the log's `last`
    entry, and the process id of the `worker`. One that adds only `retry_ms`: the server is going to end this stream."""

    generation: str
    interval_ms: int
    retry_ms: int | UnsetType = UNSET
    last: int | UnsetType = UNSET
    worker: int | UnsetType = UNSET


class EngineNews(Struct):
    """The state of the model's engines, first and when it changes, and `message` why they aren't ready."""

    generation: str
    state: Literal["ready", "loading", "failed"]
    message: str


TEXT_EVENTS = {"message": str}
"""What differs in `text_encoder`."""
PINGED_EVENTS = {**OWN_EVENTS, "queued": QueuedOf, "ping": Ping, "engine": EngineNews}
"""Of `ping_encoder`."""


class ServedModels(Struct):
    models: list[ModelJson]


class Started(Struct):
    id: str
    events_url: str


class Snapshot(Struct):
    """A generation so far. `last`: the number of the last entry included. `more`: whether others follow; only with
    `limit`. `outputs`: everything that the model sent, if that is more than text. `error`: why it failed."""

    id: str
    text: str
    state: Literal["queued", "running", "done", "cancelled", "failed"]
    finish_reason: str | None
    usage: dict[str, Any] | None
    last: int
    more: bool | UnsetType = UNSET
    error: ErrorDetails | UnsetType = UNSET
    outputs: list[dict[str, Any]] | UnsetType = UNSET


STREAM = Answer(
    "The generation's events. Where a 429 or a 503 with `Retry-After` would be due, and the client accepts "
    "`text/event-stream`, a `retry` and `busy`, because any other status closes an EventSource for good.",
    events=OWN_EVENTS,
)
SEEN = Answer("The client has seen the generation's last event.")
DESCRIPTION = ApiDescription(
    "Everstream's own API, for EventSource and curl.",
    {
        "page": Description("The page", {200: Answer("The page.", media="text/html")}),
        "stream": Description(
            "Start a generation and follow it, or resume one",
            {200: STREAM._replace(has_formats=True), 204: SEEN},
            failures=(*START, *FOLLOW, Failure(414, "uri_too_long")),
            query=Fields((ResumeQuery, FormatQuery, *OPTIONS), all_inputs, yielding=("model", "format")),
            headers=(ResumeHeader,),
        ),
        "models": Description(
            "The served models, with their states and inputs",
            {200: Answer("The models.", ServedModels)},
            failures=READ,
        ),
        "submit": Description(
            "Start a generation",
            {201: Answer("It is queued.", Started, headers={"Location": "The generation's URL."})},
            failures=(*BODY, *START),
            body=Fields(OPTIONS, all_inputs, yielding=("model",)),
        ),
        "events": Description(
            "Follow a generation",
            {200: STREAM._replace(events=PINGED_EVENTS, has_formats=True), 204: SEEN},
            failures=(*FOLLOW, *failures(UnknownGeneration)),
            query=Fields((ResumeQuery, FormatQuery, CompactQuery, PingQuery)),
            headers=(ResumeHeader,),
        ),
        "several_events": Description(
            "Follow several generations in one stream",
            {200: STREAM._replace(events=PINGED_EVENTS), 204: SEEN},
            failures=FOLLOW,
            query=Fields((SeveralQuery,)),
            headers=(ResumeHeader,),
            details="For clients that have few connections, such as all tabs of a browser together. All events are as "
            "with `ping=true`. Those without an id name their generation.",
        ),
        "show": Description(
            "A generation so far",
            {200: Answer("The generation.", Snapshot)},
            failures=(*READ, *failures(InvalidInput, TooManyStreams, UnknownGeneration)),
            query=Fields((RangeQuery,)),
        ),
        "stop": Description(
            "Stop a generation",
            {200: Answer("It had ended before.", Stopped), 202: Answer("It is going to stop.", Stopped)},
            failures=(*READ, *failures(UnknownGeneration)),
        ),
    },
    ErrorBody,
    GenerationPath,
    formats=(TEXT_EVENTS,),
)
