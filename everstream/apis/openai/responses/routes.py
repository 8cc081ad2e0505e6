"""OpenAI's Responses API.

    POST   /v1/responses                    answer, at once or as a stream; with `background`, later
    GET    /v1/responses/<id>               the response so far; `?stream=true&starting_after=N`: its events after N;
                                            `?stream=true&compact=true`: with the text so far in one event
    GET    /v1/responses/<id>/input_items   what it answers, in pages
    POST   /v1/responses/<id>/cancel        stop a background response
    DELETE /v1/responses/<id>               forget it

Besides OpenAI's fields, it accepts some of vLLM's (`requests`), `request_id`, `flush_ms`, and the headers
`Idempotency-Key` and `Last-Event-ID`.
"""

import re
from functools import partial
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from everstream.apis.openai.responses import listing, record, store
from everstream.apis.openai.responses.encoder import EVERYTHING, ResponseEncoder
from everstream.apis.openai.responses.items import Item
from everstream.apis.openai.responses.record import Record
from everstream.apis.openai.responses.requests import ParsedRequest, chat_inputs, own_param, parse
from everstream.apis.openai.responses.store import StoredResponse
from everstream.contract import inputs
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.log.records import Generation, inputs_digest
from everstream.web import posts
from everstream.web.access.rules import INFER, READ, allow
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.models import ServedModel
from everstream.web.resume_point import last_event_id
from everstream.web.sse import NUMBER
from everstream.web.streaming import admitted, begin, resume
from everstream.web.submission import RequestOptions, body, options_from_json, start
from everstream.web.whole_response import wait_for_all, wait_for_terminal

BACKGROUND_ABANDON_AFTER_S = 604_800.0
"""Nobody reads a background response while it comes into being, so a week without readers is not too long."""
_NUMBER = re.compile(NUMBER, re.ASCII)

blueprint = Blueprint("responses", __name__)


def any_generation(generation: Generation) -> ResponseEncoder:
    """For `?format=responses` of any generation's events."""
    return ResponseEncoder(generation, store.record_of(generation.id), has_ids=True)


@blueprint.post("/v1/responses")
@allow(INFER)
def create() -> Response:
    return admitted(_create, has_compact=True)


@blueprint.get("/v1/responses/<response_id>")
@allow(READ)
def retrieve(response_id: str) -> Response:
    if request.args.get("stream", "").lower() in ("true", "1"):
        return admitted(partial(_follow, response_id), has_compact=True)
    return _json(store.response(store.find(response_id)))


@blueprint.get("/v1/responses/<response_id>/input_items")
@allow(READ)
def input_items(response_id: str) -> Response:
    stored = store.find(response_id)
    return _json(listing.page(stored.record.items(stored.generation.id), request.args))


@blueprint.post("/v1/responses/<response_id>/cancel")
@allow(INFER)
def cancel(response_id: str) -> Response:
    return admitted(partial(_cancel, response_id))


@blueprint.delete("/v1/responses/<response_id>")
@allow(INFER)
def delete(response_id: str) -> Response:
    generation = store.find(response_id).generation
    app_context().log.delete(generation.id)
    return _json({"id": response_id, "object": "response", "deleted": True})


def _create() -> Response:
    given = body()
    options = options_from_json(given)
    model = app_context().models.get(posts.served_name(options.model))
    parsed = parse(given)
    posts.name_ignored(parsed.ignored)
    conversation = store.conversation(parsed.request)
    with posts.params_as(own_param):
        checked = _checked(parsed, conversation, model)
    kept = record.encoded(parsed.request, conversation)
    options = _options(options, parsed, kept)
    make_encoder = _encoder(options.request_id, kept)
    if parsed.request.stream and (seen := last_event_id()) is not None:
        return resume(seen, make_encoder, inputs_digest(checked, model.queue))
    with posts.params_as(own_param):
        generation = start(model, checked, options)
    if parsed.request.stream:
        return begin(generation, make_encoder)
    started = StoredResponse(generation, _record(generation, options.request_id, kept))
    return _started(started) if parsed.request.background else _whole(started)


def _checked(parsed: ParsedRequest, conversation: list[Item], model: ServedModel) -> dict[str, Any]:
    """The model's inputs. Raises InvalidInput."""
    wanted = chat_inputs(parsed, conversation)
    inputs.refuse_unknown(wanted, model.inputs)
    if not (parsed.request.stream or parsed.request.background) and "stream" in model.inputs:
        wanted["stream"] = False
    # As JSON, because schemas of tools are still JSON within.
    encoded = {name: msgspec.Raw(encode_json(value)) for name, value in wanted.items()}
    plain = {name: inputs.parsed(name, value) for name, value in encoded.items()}
    return inputs.from_json(plain, model.inputs, app_context().settings.max_prompt_chars)


def _options(options: RequestOptions, parsed: ParsedRequest, kept: bytes) -> RequestOptions:
    is_background = parsed.request.background
    is_stream = parsed.request.stream or is_background
    options = posts.options_of_post(options, is_stream=is_stream)
    abandon_after_s = BACKGROUND_ABANDON_AFTER_S if is_background else options.abandon_after_s
    # A stream's first event does not wait for the model, so what only the model can refuse is checked beforehand.
    return msgspec.structs.replace(options, record=kept, abandon_after_s=abandon_after_s, may_refuse_late=not is_stream)


def _record(generation: Generation, request_id: str, kept: bytes) -> Record:
    """A request id may belong to an earlier request, whose record then counts."""
    if request_id:
        return store.record_of(generation.id)
    return record.decoded(kept) or record.NO_RECORD


def _encoder(request_id: str, kept: bytes) -> MakeEncoder:
    has_ids, is_resumed = posts.reads_ids(), last_event_id() is not None

    def make(generation: Generation) -> ResponseEncoder:
        its_record = store.record_of(generation.id) if is_resumed else _record(generation, request_id, kept)
        return ResponseEncoder(generation, its_record, has_ids=has_ids)

    return make


def _started(stored: StoredResponse) -> Response:
    is_new = stored.generation.state == "open" and not stored.generation.top
    return _json(store.events_of(stored).response() if is_new else store.response(stored))


def _whole(stored: StoredResponse) -> Response:
    (generation, kept), events = stored, store.events_of(stored)
    with posts.params_as(own_param):
        for entry in wait_for_all(ResponseEncoder(generation, kept, has_ids=False), generation.queue):
            events.entry(entry)
    return _json(events.response())


def _follow(response_id: str) -> Response:
    stored = store.find(response_id)
    make_encoder = partial(
        ResponseEncoder, record=stored.record, has_ids=posts.reads_ids(), starting_after=_starting_after()
    )
    if (seen := last_event_id()) is None:
        return begin(stored.generation, make_encoder)
    if seen.generation != stored.generation.id:
        raise InvalidInput("Last-Event-ID belongs to a different response", param="Last-Event-ID")
    return resume(seen, make_encoder)


def _starting_after() -> int:
    given = request.args.get("starting_after", "")
    if not given:
        return EVERYTHING
    if "compact" in request.args:
        raise InvalidInput("compact is for those who have seen nothing yet", param="compact")
    if not _NUMBER.fullmatch(given):
        raise InvalidInput("starting_after must be the number of an event", param="starting_after")
    return int(given)


def _cancel(response_id: str) -> Response:
    stored = store.find(response_id)
    generation, kept = stored
    if not kept.is_background:
        raise InvalidInput("Cannot cancel a synchronous response.")
    if generation.state == "open":
        app_context().log.stop(generation.id)
        wait_for_terminal(ResponseEncoder(generation, kept, has_ids=False), generation.queue)
    return _json(store.response(store.find(response_id)))


def _json(value: dict[str, Any]) -> Response:
    return Response(encode_json(value), mimetype="application/json")
