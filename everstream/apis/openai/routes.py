"""OpenAI's API, limited to streamed responses.

    POST /v1/chat/completions     messages; `stream: true`
    POST /v1/completions          prompt, without a chat template; `stream: true`
    GET  /v1/models               the served models

Besides OpenAI's own fields, it accepts `top_k`, `ignore_eos`, `request_id`, `flush_ms` and the header `Last-Event-ID`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response

from everstream.apis.openai import requests
from everstream.apis.openai.chunks import ChunkEncoder
from everstream.contract import inputs
from everstream.errors import EverstreamError, InvalidInput
from everstream.log.records import inputs_digest
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.streaming import MakeEncoder, admitted, follow, last_event_id, resume
from everstream.web.submission import body, options_from_json, start

blueprint = Blueprint("openai", __name__)


def error_body(error: EverstreamError) -> dict[str, Any]:
    """The format that OpenAI's clients expect."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    return {"error": {**error.body()["error"], "type": kind}}


API = Api(blueprint, "/v1/", error_body)


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    return admitted(partial(_respond, requests.chat, is_chat=True))


@blueprint.post("/v1/completions")
def completions() -> Response:
    return admitted(partial(_respond, requests.completion, is_chat=False))


@blueprint.get("/v1/models")
def models() -> dict[str, Any]:
    about = {"object": "model", "created": 0, "owned_by": "everstream"}
    return {"object": "list", "data": [{"id": name, **about} for name in app_context().models.names()]}


def _respond(parse: Callable[[dict[str, Any]], requests.ParsedRequest], *, is_chat: bool) -> Response:
    context, given = app_context(), body()
    options = options_from_json(given)
    parsed = parse(given)
    encoder: MakeEncoder = partial(ChunkEncoder, is_chat=is_chat, include_usage=parsed.include_usage)
    model = context.models.get(options.model)
    for name in parsed.inputs:
        if name not in model.inputs:
            raise InvalidInput(f"the served model does not accept {name}", param=name)
    checked = inputs.from_json(parsed.inputs, model.inputs, context.settings.max_prompt_chars)
    if (seen := last_event_id()) is not None:
        return resume(*seen, encoder, inputs_digest(checked, model.queue))
    return follow(start(model, checked, options), -1, encoder)
