"""Anthropic's Messages API.

    POST /v1/messages               messages; answered with a message, or with its events
    POST /v1/messages/count_tokens  the same without what concerns the answer: the number of the prompt's tokens

Besides Anthropic's fields, it accepts `chat_template_kwargs` and `cache_salt`, as vLLM's server does, `request_id`,
`flush_ms`, and the headers `Idempotency-Key` and `Last-Event-ID`. An answer that the client's model can't give is
refused; what else has no effect is named in the header `x-everstream-ignored`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response

from everstream.apis.anthropic import errors, requests
from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.anthropic.events import MessageEvents
from everstream.apis.anthropic.whole_message import whole_message
from everstream.contract import inputs
from everstream.contract.schema import Schema
from everstream.errors import EverstreamError
from everstream.log.entries import encode_json
from everstream.log.records import Generation, inputs_digest
from everstream.web import posts
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.models import ServedModel
from everstream.web.streaming import admitted, begin, begin_unless_refused, last_event_id, resume
from everstream.web.submission import RequestOptions, body, options_from_json, start, tokens_of
from everstream.web.whole_response import wait_for_all

blueprint = Blueprint("anthropic", __name__)


def error_body(error: EverstreamError) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(errors.error_body(error, posts.request_id()))
    return made


def add_headers(response: Response) -> None:
    response.headers["request-id"] = posts.request_id()
    posts.add_headers(response)


API = Api(
    blueprint,
    "/v1/messages",
    error_body,
    formats={"messages": partial(MessageEncoder, has_ids=True)},
    add_headers=add_headers,
)


@blueprint.post("/v1/messages")
def messages() -> Response:
    return admitted(_respond)


def _respond() -> Response:
    asked = _asked(requests.messages)
    model, given = asked.model, asked.inputs
    options = posts.options_of_post(asked.options, is_stream=asked.is_stream)
    if not asked.is_stream:
        return _whole(start(model, given, options))
    encoder = partial(MessageEncoder, has_ids=posts.reads_ids())
    if (seen := last_event_id()) is not None:
        return resume(seen, encoder, inputs_digest(given, model.queue))
    may_be_refused = model.must_check(given) or requests.has_images(given)
    respond = begin_unless_refused if may_be_refused else begin
    return respond(start(model, given, options), encoder)


@blueprint.post("/v1/messages/count_tokens")
def count_tokens() -> dict[str, int]:
    asked = _asked(requests.prompt)
    return {"input_tokens": len(tokens_of(asked.model, asked.inputs))}


class _Asked(NamedTuple):
    """A checked request."""

    model: ServedModel
    inputs: dict[str, Any]
    options: RequestOptions
    is_stream: bool


def _asked(parse: Callable[[dict[str, Any], Schema], requests.ParsedRequest]) -> _Asked:
    """Raises InvalidInput."""
    context, given = app_context(), body()
    options = options_from_json(given)
    model = context.models.get(posts.served_name(options.model))
    parsed = parse(given, model.inputs)
    posts.name_ignored(parsed.ignored)
    checked = inputs.from_json(parsed.inputs, model.inputs, context.settings.max_prompt_chars)
    return _Asked(model, checked, options, parsed.is_stream)


def _whole(generation: Generation) -> Response:
    entries = wait_for_all(MessageEncoder(generation, has_ids=False), generation.queue)
    machine = MessageEvents(generation)
    events = [*machine.start(), *(event for entry in entries for event in machine.entry(entry))]
    return Response(encode_json(whole_message(events)), mimetype="application/json")
