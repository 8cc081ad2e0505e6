"""Describes the routes of an API, for `GET /openapi.json` and `/docs`.

Each API has a `Description` of each of its routes, by the name of its view function. Most bodies are decoded to the
types in it. Many types of responses serve only to describe them; `tests/stack/test_openapi.py` compares them with real
responses. Paths, methods and the names of path parameters come from the routes themselves. Pure. Read by
`apis.openapi`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Meta, Raw

from everstream.contract.schema import Schema
from everstream.errors import (
    FAILED_STATUS,
    BodyTooLarge,
    BodyTooSlow,
    ChecksBusy,
    CheckTimedOut,
    EntriesLost,
    EverstreamError,
    GenerationCancelled,
    InvalidInput,
    LogBroken,
    LogFull,
    LogUnavailable,
    ModelError,
    ModelLoading,
    ModelUnavailable,
    NotSupported,
    QueueFull,
    RequestConflict,
    ShuttingDown,
    TooManyBodies,
    TooManyChecks,
    TooManyStreams,
    TryLater,
    UnknownModel,
)

SERVED_MODEL = "served-model"
EVENT_FORMAT = "event-format"
"""The `format` of strings whose values are known only when the document is made: see `apis.openapi.document`."""


REQUIRED_MARK = "x-required"
REQUIRED = Meta(extra_json_schema={REQUIRED_MARK: True})
"""Of a field that has a default only so that the error for a missing one can say more. Null is as good as missing."""


def raw_field(default: bytes = b"") -> Any:
    """A struct's field with this JSON as its default, by a factory: msgspec can't show a `Raw` in a schema."""
    return msgspec.field(default_factory=lambda: Raw(default))


class Failure(NamedTuple):
    """An error's status and code. `may_retry`: the response has `Retry-After`."""

    status: int
    code: str
    may_retry: bool = False


class Fields(NamedTuple):
    """What a body, or a query, may have: the fields of these structs, and inputs of the served model.

    `inputs` chooses among the model's, or returns None if the route is not for this model. Without it, a request has no
    inputs. `is_open`: a body's other fields are ignored, not refused. `yielding`: the names of fields that a request
    does not have if only one model is served and has an input of that name.
    """

    types: Sequence[type]
    inputs: Callable[[Schema], Schema | None] | None = None
    is_open: bool = False
    yielding: Sequence[str] = ()


def all_inputs(inputs: Schema) -> Schema:
    return inputs


Events = Mapping[str, Any]
"""The types of events' data, by the events' names. The default event is called `message`. A tuple has alternatives, of
which a string is the data itself. The type `str` is text, not a JSON string."""


class Answer(NamedTuple):
    """A response to a request that succeeded.

    `json`: the type of its JSON. `events`: if it is a stream. `has_formats`: its events may be in any API's format.
    `media`: the content type of anything else. `headers`: what they mean.
    """

    about: str
    json: Any = None
    events: Events | None = None
    has_formats: bool = False
    media: str = ""
    headers: Mapping[str, str] = {}


class Description(NamedTuple):
    """A route. `body`: the type of its JSON, or `Fields`. `headers`: structs whose fields are request headers."""

    summary: str
    answers: Mapping[int, Answer]
    failures: Sequence[Failure] = ()
    query: Fields = Fields(())
    headers: Sequence[type] = ()
    body: Any = None
    details: str = ""
    body_is_optional: bool = False


class ApiDescription(NamedTuple):
    """`routes`: by the names of the view functions. `error`: the type of error bodies. `path`: a struct whose fields
    are the parameters in the paths. `headers`: what those of all responses mean. `formats`: the events of the formats
    that it has for others' generations."""

    about: str
    routes: Mapping[str, Description]
    error: Any
    path: type | None = None
    headers: Mapping[str, str] = {}
    formats: Sequence[Events] = ()


def failures(*kinds: type[EverstreamError]) -> tuple[Failure, ...]:
    return tuple(Failure(kind.status, kind.code, issubclass(kind, TryLater)) for kind in kinds)


READ = failures(LogUnavailable, LogBroken)
"""Of any route that reads the log."""
BODY = failures(InvalidInput, BodyTooSlow, BodyTooLarge, TooManyBodies)
MODEL = failures(ModelUnavailable, ModelLoading)
"""Of any route that has to know what a model takes."""
ASK = (*READ, *MODEL, *failures(ModelError, TooManyChecks, ChecksBusy, CheckTimedOut))
"""Of any route that asks an engine about a prompt."""
START = (*ASK, Failure(400, "context_length_exceeded"), *failures(InvalidInput, RequestConflict, QueueFull, LogFull))
FOLLOW = (*READ, *failures(InvalidInput, EntriesLost, TooManyStreams))
RESUME = (*FOLLOW, Failure(409, "last_event_id_conflict"))
"""Of a POST that resumes the generation which the same request started."""
WHOLE = (
    *failures(GenerationCancelled, TooManyStreams, ShuttingDown),
    *(Failure(status, code) for code, status in FAILED_STATUS.items()),
)
"""Of a response that waits for the generation's end."""
ANSWER = (*BODY, *START, *RESUME, *WHOLE, *failures(UnknownModel))
"""Of a POST that names its model and is answered whole or streamed, as in OpenAI's and Anthropic's APIs."""
TOKENIZE = (*BODY, *ASK, *failures(UnknownModel, NotSupported))
