"""OpenAI's API.

    POST /v1/chat/completions     messages
    POST /v1/completions          prompts, without a chat template
    GET  /v1/models[/<name>]      the served models
    POST /tokenize, /detokenize   as vLLM has them, see `tokens`

Besides OpenAI's fields, it accepts vLLM's parameters, `request_id`, `flush_ms`, and the headers `Idempotency-Key` and
`Last-Event-ID`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response

from everstream.apis.openai import answers, headers, requests, tokens
from everstream.apis.openai.chunks import ChunkEncoder, ChunkFormat
from everstream.apis.openai.descriptions import DESCRIPTION
from everstream.apis.openai.errors import error_body
from everstream.apis.openai.responses import routes as responses
from everstream.errors import NotSupported
from everstream.log.entries import encode_json
from everstream.log.records import Generation
from everstream.web import posts, readiness
from everstream.web.access.rules import INFER, READ, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.readiness import Readiness
from everstream.web.streaming import admitted
from everstream.web.submission import start
from everstream.web.whole_response import wait_for_all

blueprint = Blueprint("openai", __name__)
blueprint.register_blueprint(responses.blueprint)
headers.register(blueprint)
API = Api(
    blueprint,
    ("/v1/", "/tokenize", "/detokenize"),
    error_body,
    formats={
        "openai-chat": partial(ChunkEncoder, wanted=ChunkFormat(is_chat=True, has_ids=True)),
        "responses": responses.any_generation,
        "completions": partial(ChunkEncoder, wanted=ChunkFormat(is_chat=False, has_ids=True)),
    },
    add_headers=headers.add,
    description=DESCRIPTION,
)

Finish = Callable[[Generation, answers.Answer], dict[str, Any]]


@blueprint.post("/v1/chat/completions")
@allow(INFER)
def chat_completions() -> Response:
    return admitted(partial(_respond, requests.chat, answers.chat_completion, is_chat=True), has_compact=True)


@blueprint.post("/v1/completions")
@allow(INFER)
def completions() -> Response:
    with posts.params_as(requests.own_param):
        return admitted(
            partial(_respond, requests.completion, answers.text_completion, is_chat=False), has_compact=True
        )


@blueprint.get("/v1/models")
@allow(READ)
def models() -> dict[str, Any]:
    return {"object": "list", "data": [_about(each) for each in readiness.of_all(app_context())]}


@blueprint.get("/v1/models/<path:name>")
@allow(READ)
def model(name: str) -> dict[str, Any]:
    folder = app_context().models.folder(posts.served_name(name))
    return _about(readiness.of(app_context(), [folder])[0])


@blueprint.post("/v1/embeddings")
@allow(INFER)
def embeddings() -> Response:
    raise NotSupported("this server generates text; it has no embeddings", code="embeddings_not_supported")


blueprint.post("/tokenize")(tokens.tokenize)
blueprint.post("/detokenize")(tokens.detokenize)


def _about(found: Readiness) -> dict[str, Any]:
    about = {"object": "model", "created": 0, "owned_by": "everstream", "root": found.model, "parent": None}
    return {"id": found.model, **about, "max_model_len": found.max_model_len}


def _respond(parse: requests.Parse, finish: Finish, *, is_chat: bool) -> Response:
    checked = posts.checked_request(parse)
    if not checked.parsed.is_stream:
        return _whole(start(checked.model, checked.inputs, checked.options), finish)
    wanted = ChunkFormat(is_chat, checked.parsed.include_usage, posts.reads_ids())
    return posts.stream(checked, partial(ChunkEncoder, wanted=wanted))


def _whole(generation: Generation, finish: Finish) -> Response:
    entries = wait_for_all(ChunkEncoder(generation, ChunkFormat(is_chat=True)), generation.queue)
    return Response(encode_json(finish(generation, answers.Answer(entries))), mimetype="application/json")
