"""OpenAI's API, in its plain form: answers that are streamed.

    POST /v1/chat/completions     messages; `stream: true`
    POST /v1/completions          prompt, without a chat template; `stream: true`
    GET  /v1/models               the model that is served

Beside OpenAI's own fields `top_k`, `ignore_eos`, `request_id` and `flush_ms` are taken, and the header `Last-Event-ID`.
"""

from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from everstream import inputs, log, openai
from everstream.errors import EverstreamError, InvalidInput
from everstream.starting import body, start, terms_from_json
from everstream.streaming import MakeEncoder, admitted, follow, last_event_id, resume
from everstream.web import web

PREFIX = "/v1/"

blueprint = Blueprint("openai", __name__)


@blueprint.post("/v1/chat/completions")
def chat_completions() -> Response:
    return admitted(partial(_respond, is_chat=True))


@blueprint.post("/v1/completions")
def completions() -> Response:
    return admitted(partial(_respond, is_chat=False))


@blueprint.get("/v1/models")
def models() -> dict[str, Any]:
    return {"object": "list", "data": [{"id": _model(), "object": "model", "created": 0, "owned_by": "everstream"}]}


def _respond(*, is_chat: bool) -> Response:
    given = body()
    terms = terms_from_json(given)
    wanted = (openai.chat if is_chat else openai.completion)(given, _model())
    encoder: MakeEncoder = partial(openai.Chunks, is_chat=is_chat, include_usage=wanted.include_usage)
    for name in wanted.inputs:
        if name not in web().schema:
            raise InvalidInput(f"the model that is served takes no {name}", param=name)
    checked = inputs.from_json(wanted.inputs, web().schema, web().settings.max_prompt_chars)
    if (seen := last_event_id()) is not None:
        return resume(*seen, encoder, log.digest(checked))
    return follow(start(checked, terms), -1, encoder)


def _model() -> str:
    return web().settings.model_name


def is_asked() -> bool:
    """Whether the request at hand is for this API."""
    return request.path.startswith(PREFIX)


def error_body(error: EverstreamError) -> dict[str, Any]:
    """As OpenAI's clients expect it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    if error.status == 429:
        kind = "rate_limit_error"
    return {"error": {**error.body()["error"], "type": kind}}
