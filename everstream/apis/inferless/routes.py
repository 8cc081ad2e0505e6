"""The Open Inference Protocol (KServe v2), with Triton's binary tensor data and generate extensions.

    POST /v2/models/<name>/infer              tensors in, tensors out; a non-streaming response or Server-Sent Events
    POST /v2/models/<name>/generate           text in, text out; a non-streaming response
    POST /v2/models/<name>/generate_stream    the same as Server-Sent Events
    GET  /v2/models/<name>                    what the model takes
    GET  /v2/models/<name>/ready              200 if an engine has loaded it, else 503
    GET  /v2, /v2/health/live, /v2/health/ready; POST /v2/repository/index

Each `<name>` may be followed by `/versions/1`.
"""

from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from everstream import __version__
from everstream.apis.inferless import metadata, requests, responses
from everstream.apis.inferless.binary import HEADER as JSON_SIZE
from everstream.apis.inferless.compression import inflated
from everstream.apis.inferless.descriptions import DESCRIPTION, ErrorBody
from everstream.apis.inferless.encoders import VERSION, GenerateEncoder, InferEncoder
from everstream.apis.inferless.requests import ParsedRequest
from everstream.contract import inputs
from everstream.errors import EverstreamError, UnknownModel
from everstream.log.records import Generation, inputs_digest
from everstream.web import readiness
from everstream.web.access.rules import INFER, PUBLIC, READ, Rule, allow
from everstream.web.api import Api, MakeEncoder
from everstream.web.context import app_context
from everstream.web.json_response import json_response, outputs
from everstream.web.models import ServedModel
from everstream.web.resume_point import last_event_id
from everstream.web.sse import MIMETYPE
from everstream.web.streaming import admitted, begin, resume
from everstream.web.submission import RequestOptions, body_bytes, idempotency_key, is_request_id, start
from everstream.web.whole_response import wait_for_end

blueprint = Blueprint("inferless", __name__)
_MODEL = "/v2/models/<path:name>"
_VERSION = f"{_MODEL}/versions/<version>"


def error_body(error: EverstreamError) -> ErrorBody:
    return {"error": error.message, "code": error.code, "param": error.param}


API = Api(blueprint, ("/v2",), error_body, description=DESCRIPTION)


@blueprint.post(f"{_MODEL}/infer")
@blueprint.post(f"{_VERSION}/infer")
@allow(Rule("infer", takes=("application/json", "application/octet-stream")))
def infer(name: str, version: str = VERSION) -> Response:
    return admitted(partial(_infer, _served(name, version)), has_compact=True)


@blueprint.post(f"{_MODEL}/generate")
@blueprint.post(f"{_VERSION}/generate")
@allow(INFER)
def generate(name: str, version: str = VERSION) -> Response:
    return admitted(partial(_generate, _served(name, version)))


@blueprint.post(f"{_MODEL}/generate_stream")
@blueprint.post(f"{_VERSION}/generate_stream")
@allow(INFER)
def generate_stream(name: str, version: str = VERSION) -> Response:
    return admitted(partial(_generate_stream, _served(name, version)), has_compact=True)


@blueprint.get(_MODEL)
@blueprint.get(_VERSION)
@allow(READ)
def show_model(name: str, version: str = VERSION) -> metadata.ModelAbout:
    return metadata.model(name, _served(name, version).inputs)


@blueprint.get(f"{_MODEL}/ready")
@blueprint.get(f"{_VERSION}/ready")
@allow(READ)
def model_ready(name: str, version: str = VERSION) -> tuple[dict[str, Any], int]:
    ready = _served(name, version).name in _ready_models()
    return {"name": name, "ready": ready}, 200 if ready else 503


@blueprint.get("/v2")
@allow(READ)
def server() -> metadata.ServerAbout:
    return metadata.server(__version__)


@blueprint.get("/v2/health/live")
@allow(PUBLIC)
def live() -> dict[str, bool]:
    return {"live": True}


@blueprint.get("/v2/health/ready")
@allow(PUBLIC)
def ready() -> tuple[dict[str, bool], int]:
    ready = _ready_models() >= set(app_context().models.names())
    return {"ready": ready}, 200 if ready else 503


@blueprint.post("/v2/repository/index")
@allow(READ)
def index() -> Response:
    ready_only = requests.ready_only(_body())
    models = metadata.index(app_context().models.names(), _ready_models(), ready_only=ready_only)
    return Response(models, mimetype="application/json")


def _infer(model: ServedModel) -> Response:
    parsed = requests.infer(_body(), request.headers.get(JSON_SIZE), model.inputs)
    make_encoder = partial(InferEncoder, request_id=parsed.id, wanted=parsed.outputs)
    if _wants_stream(model, parsed):
        return _stream(model, parsed, make_encoder)
    generation = _start(model, parsed)
    encoder = make_encoder(generation)
    # Inputs may be large, and the wait long.
    del parsed
    end = wait_for_end(encoder, generation.queue)
    entries = outputs(app_context(), encoder.generation, 0, end.n)
    return json_response(responses.infer(encoder, entries, with_ids=end.n > 2))


def _generate(model: ServedModel) -> Response:
    generation = _start(model, requests.generate(_body(), model.inputs))
    encoder = GenerateEncoder(generation)
    end = wait_for_end(encoder, generation.queue)
    entries = outputs(app_context(), encoder.generation, 0, end.n)
    return json_response(responses.generate(encoder, entries, end))


def _generate_stream(model: ServedModel) -> Response:
    return _stream(model, requests.generate(_body(), model.inputs), GenerateEncoder)


def _wants_stream(model: ServedModel, parsed: ParsedRequest) -> bool:
    """Whether to answer with events. Most clients accept anything; then it depends on the model."""
    accepted = {each: quality for each, quality in request.accept_mimetypes if quality > 0}
    stream, whole = accepted.get(MIMETYPE, 0), accepted.get("application/json", 0)
    if stream != whole:
        return stream > whole
    return model.is_streaming and not parsed.wants_binary


def _stream(model: ServedModel, parsed: ParsedRequest, make_encoder: MakeEncoder) -> Response:
    if (seen := last_event_id()) is not None:
        return resume(seen, make_encoder, inputs_digest(_checked_values(model, parsed), model.queue))
    return begin(_start(model, parsed), make_encoder)


def _start(model: ServedModel, parsed: ParsedRequest) -> Generation:
    return start(model, _checked_values(model, parsed), RequestOptions(_request_id(parsed)))


def _checked_values(model: ServedModel, parsed: ParsedRequest) -> dict[str, Any]:
    return inputs.from_json(parsed.values, model.inputs, app_context().settings.max_prompt_chars)


def _request_id(parsed: ParsedRequest) -> str:
    """The header's, or the body's `id` if it is hard to guess. Other ids are for the client alone."""
    return idempotency_key() or (parsed.id if is_request_id(parsed.id) else "")


def _body() -> bytes:
    encoding = request.headers.get("Content-Encoding", "")
    return inflated(body_bytes(), encoding, app_context().settings.max_body_bytes)


def _served(name: str, version: str) -> ServedModel:
    """Raises UnknownModel."""
    models = app_context().models
    if name not in models.names():
        raise UnknownModel(
            f"there is no model {name[:100]!r} here; there is {', '.join(models.names())}", param="model"
        )
    if version != VERSION:
        raise UnknownModel(f"{name} has no version {version[:100]!r}; its only version is {VERSION}", param="version")
    return models.get(name)


def _ready_models() -> set[str]:
    return {model.model for model in readiness.of_all(app_context()) if model.now.state == "ready"}
