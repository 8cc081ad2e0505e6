"""Anthropic's Messages API.

    POST /v1/messages               messages; answered with a message, or with its events

Besides Anthropic's fields, it accepts `chat_template_kwargs` and `cache_salt`, as vLLM's server does, `request_id`,
`flush_ms`, and the headers `Idempotency-Key` and `Last-Event-ID`. An answer that the client's model can't give is
refused; what else has no effect is named in the header `x-everstream-ignored`.
"""

from functools import partial
from typing import Any

import msgspec
from flask import Blueprint, Response

from everstream.apis.anthropic import errors, requests
from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.anthropic.events import MessageEvents
from everstream.apis.anthropic.whole_message import whole_message
from everstream.contract import inputs
from everstream.errors import EverstreamError
from everstream.log.entries import encode_json
from everstream.log.records import Generation, inputs_digest
from everstream.web import posts
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.streaming import admitted, begin, begin_unless_refused, last_event_id, resume
from everstream.web.submission import body, options_from_json, start
from everstream.web.whole_response import wait_for_all

blueprint = Blueprint("anthropic", __name__)


def error_body(error: EverstreamError) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(errors.error_body(error, posts.request_id()))
    return made


def add_headers(response: Response) -> None:
    response.headers["request-id"] = posts.request_id()
    posts.add_ignored(response)


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
    context, given = app_context(), body()
    options = options_from_json(given)
    model = context.models.get(posts.served_name(options.model))
    parsed = requests.messages(given, model.inputs)
    posts.name_ignored(parsed.ignored)
    checked = inputs.from_json(parsed.inputs, model.inputs, context.settings.max_prompt_chars)
    options = posts.options_of_post(options, is_stream=parsed.is_stream)
    if not parsed.is_stream:
        return _whole(start(model, checked, options))
    encoder = partial(MessageEncoder, has_ids=posts.reads_ids())
    if (seen := last_event_id()) is not None:
        return resume(seen, encoder, inputs_digest(checked, model.queue))
    respond = begin_unless_refused if model.must_check(checked) else begin
    return respond(start(model, checked, options), encoder)


def _whole(generation: Generation) -> Response:
    entries = wait_for_all(MessageEncoder(generation, has_ids=False), generation.queue)
    machine = MessageEvents(generation)
    events = [*machine.start(), *(event for entry in entries for event in machine.entry(entry))]
    return Response(encode_json(whole_message(events)), mimetype="application/json")
