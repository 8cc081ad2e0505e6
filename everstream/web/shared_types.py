"""The types of what several APIs' requests and streams have in common, for their descriptions. Pure.

A parameter's type says what it is checked against; the checks are in `submission`, `streaming` and `sse`.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.settings import MAX_FLUSH_MS
from everstream.web.description import EVENT_FORMAT, SERVED_MODEL, Fields
from everstream.web.sse import EVENT_ID
from everstream.web.submission import MAX_KEY_CHARS, REQUEST_ID

ServedName = Annotated[str, Meta(description="a served model", extra_json_schema={"format": SERVED_MODEL})]
EventIdText = Annotated[
    str, Meta(description="the last event that the client has seen, to resume after it", pattern=f"^(?:{EVENT_ID})$")
]


class RequestIdOption(Struct):
    request_id: (
        Annotated[
            str,
            Meta(
                description="the same id with the same request attaches to the existing generation",
                pattern=f"^(?:{REQUEST_ID})$",
            ),
        ]
        | None
    ) = None


class Stopped(Struct):
    """`state`: `stopping`, or how it had ended."""

    id: str
    state: Literal["stopping", "done", "cancelled", "failed"]


class FlushOption(Struct):
    flush_ms: (
        Annotated[
            int,
            Meta(
                description="tokens generated within this many milliseconds are sent in one event",
                ge=0,
                le=MAX_FLUSH_MS,
            ),
        ]
        | None
    ) = None


class ModelOption(Struct):
    model: ServedName | None = None


OPTIONS = (ModelOption, RequestIdOption, FlushOption)
"""The fields of `submission.RequestOptions` that a client may give."""


class ResumeQuery(Struct):
    last_event_id: EventIdText | UnsetType = UNSET


class ResumeHeader(Struct, rename={"last_event_id": "Last-Event-ID"}):
    last_event_id: EventIdText | UnsetType = UNSET


class FormatQuery(Struct):
    format: (
        Annotated[
            str,
            Meta(
                description="text: the text itself instead of JSON; the others: the events of another API",
                extra_json_schema={"format": EVENT_FORMAT},
            ),
        ]
        | UnsetType
    ) = UNSET


class CompactQuery(Struct):
    compact: (
        Annotated[
            Literal["true", "false"],
            Meta(description="true: text that was generated before the request comes in one event"),
        ]
        | UnsetType
    ) = UNSET


class KeyHeader(Struct, rename={"idempotency_key": "Idempotency-Key"}):
    idempotency_key: (
        Annotated[
            str,
            Meta(
                description="the same key with the same request attaches to the existing generation",
                min_length=16,
                max_length=MAX_KEY_CHARS,
                pattern="^[ -~]+$",
            ),
        ]
        | UnsetType
    ) = UNSET


class RequestIdHeader(Struct, rename={"request_id": "x-request-id"}):
    request_id: Annotated[str, Meta(description="repeated in the response, if it is harmless")] | UnsetType = UNSET


POST_QUERY = Fields((ResumeQuery, CompactQuery))
POST_HEADERS = (KeyHeader, RequestIdHeader, ResumeHeader)
"""Of a POST whose failures are `description.ANSWER`."""


class Opened(Struct):
    """The stream begins."""

    generation: str
    model: str


class Queued(Struct):
    """Position 1 of `length` is next; 0: an engine has taken it."""

    position: int
    length: int


class Resumed(Struct):
    """An engine died, and another one continues."""

    attempt: int


class Done(Struct):
    finish_reason: str
    usage: dict[str, Any] | None
    choices: list[dict[str, Any]] | UnsetType = UNSET


class Cancelled(Struct):
    reason: Literal["requested", "abandoned"]


class Failed(Struct):
    code: str
    message: str
    param: str | UnsetType | None = UNSET


class Busy(Struct):
    """Instead of a `429` or a `503` with `Retry-After`."""

    code: str
    message: str
    retry_ms: int


OWN_EVENTS = {
    "busy": Busy,
    "open": Opened,
    "queued": Queued,
    "message": dict[str, Any],
    "resumed": Resumed,
    "done": Done,
    "cancelled": Cancelled,
    "failed": Failed,
}
"""Of `event_encoder`. `message`: what the model sends."""
