"""What the APIs have in common that answer a POST, as OpenAI's and Anthropic's do. Called by their routes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec
from flask import Response, g, request

from everstream.contract import inputs
from everstream.contract.schema import Schema
from everstream.errors import EverstreamError, UnknownModel
from everstream.log.records import Generation, inputs_digest
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.models import ServedModel
from everstream.web.request_ids import HARMLESS
from everstream.web.resume_point import last_event_id
from everstream.web.sse import MIMETYPE
from everstream.web.streaming import begin, begin_unless_refused, resume
from everstream.web.submission import RequestOptions, body, idempotency_key, options_from_json, start

IGNORED = "x-everstream-ignored"
MAX_IGNORED_CHARS = 1000
WHOLE_FLUSH_MS = 1000
"""Nobody watches a response that comes whole, so its outputs are joined."""
ADDED_HEADERS = {
    IGNORED: "Names of the request's fields that have no effect.",
    "x-should-retry": "`false`: the same request would fail again.",
}
"""What `add_headers` adds to responses, for descriptions."""


class ParsedRequest(Protocol):
    """What an API makes of a body."""

    @property
    def inputs(self) -> dict[str, Any]:
        """The model's, not checked yet."""

    @property
    def is_stream(self) -> bool: ...

    @property
    def ignored(self) -> list[str]:
        """The names of the fields that have no effect."""


P = TypeVar("P", bound=ParsedRequest)


class CheckedRequest(NamedTuple, Generic[P]):
    """`inputs` are the model's."""

    model: ServedModel
    parsed: P
    inputs: dict[str, Any]
    options: RequestOptions


def checked_request(
    parse: Callable[[dict[str, Any], Schema], P], given: dict[str, Any] | None = None
) -> CheckedRequest[P]:
    """Read and check the body. `given`: what to take for it. Raises InvalidInput, UnknownModel."""
    context = app_context()
    given = body() if given is None else given
    options = options_from_json(given)
    model = context.models.get(served_name(options.model))
    parsed = parse(given, model.inputs)
    name_ignored(parsed.ignored)
    checked = inputs.from_json(parsed.inputs, model.inputs, context.settings.max_prompt_chars)
    return CheckedRequest(model, parsed, checked, options_of_post(options, is_stream=parsed.is_stream))


def stream(checked: CheckedRequest[P], make_encoder: MakeEncoder) -> Response:
    """Start the generation and stream it, or resume the one that `Last-Event-ID` names."""
    model, _, given, options = checked
    if (seen := last_event_id()) is not None:
        return resume(seen, make_encoder, inputs_digest(given, model.queue))
    return beginning(checked)(start(model, given, options), make_encoder)


def beginning(checked: CheckedRequest[P]) -> Callable[[Generation, MakeEncoder], Response]:
    """How to stream the generation that this request starts."""
    may_be_refused = checked.model.must_check(checked.inputs) or has_media(checked.inputs)
    return begin_unless_refused if may_be_refused else begin


def has_media(given: dict[str, Any]) -> bool:
    """Whether there are images and the like, which only the model knows if it takes."""
    # In a string, the quotes would be escaped.
    return '_url":' in given.get("messages", "")


def served_name(name: str | None) -> str:
    """The name of a served model; None: the first. Raises UnknownModel."""
    names = app_context().models.names()
    if name is not None and name not in names:
        raise UnknownModel(f"The model {name[:100]!r} does not exist; served here: {', '.join(names)}", param="model")
    return name or names[0]


def reads_ids() -> bool:
    """Whether the client reads Server-Sent Events by the standard, and so can resume. Most SDKs read lines."""
    headers = request.headers
    names_id = "Last-Event-ID" in headers or "last_event_id" in request.args
    return names_id or MIMETYPE in headers.get("Accept", "")


def options_of_post(options: RequestOptions, *, is_stream: bool) -> RequestOptions:
    """With the idempotency key as request id. A client that can't come back is not waited for. Raises InvalidInput."""
    key = options.request_id or idempotency_key()
    can_return = key or (is_stream and reads_ids())
    return msgspec.structs.replace(
        options,
        request_id=key,
        flush_ms=WHOLE_FLUSH_MS if options.flush_ms is None and not is_stream else options.flush_ms,
        abandon_after_s=None if can_return else app_context().settings.post_abandon_after_s,
        may_refuse_late=True,
    )


@contextmanager
def params_as(own_param: Callable[[str | None], str | None]) -> Iterator[None]:
    """Errors about the model's inputs name the request's fields. `own_param`: what a request calls an input."""
    try:
        yield
    except EverstreamError as error:
        error.param = own_param(error.param)
        raise


def name_ignored(names: list[str]) -> None:
    """Have the response name the request's fields that were ignored, and count them."""
    g.ignored = names
    app_context().follower.count("parameters_ignored", len(names))


def add_headers(response: Response) -> Response:
    """Those for `name_ignored`, and for clients that would send a request again in vain. For `after_request`."""
    if response.status_code == HTTPStatus.CONFLICT:
        # OpenAI's and Anthropic's clients repeat it by themselves.
        response.headers["x-should-retry"] = "false"
    if ignored := g.get("ignored"):
        # The names come from the client.
        shown = [name if HARMLESS.fullmatch(name) else "?" for name in ignored]
        response.headers[IGNORED] = ", ".join(shown)[:MAX_IGNORED_CHARS]
    return response
