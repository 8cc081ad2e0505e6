"""Turns a request's body into a queued generation. Called by the routes of all APIs that start one.

In: inputs that `contract.inputs` has checked, and the request's options (`RequestOptions`). Out: a queued generation,
or the one that the same request id started. Raises InvalidInput, RequestConflict, TryLater, ModelUnavailable,
LogBroken.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from everstream.contract import inputs
from everstream.errors import Forbidden, InvalidInput, UnknownGeneration
from everstream.log.records import EngineStatus, Generation, Job, Submission, engine_failure
from everstream.settings import MAX_FLUSH_MS
from everstream.web import traces
from everstream.web.access.client_limits import client_of
from everstream.web.access.principal import Principal, principal
from everstream.web.context import app_context
from everstream.web.models import ServedModel
from everstream.web.prompt_validation import refuse_what_cant_fit
from everstream.web.request_ids import note_generation, request_id

TEMPLATE_TOKENS = 512
"""Room for a chat template when a prompt's byte count serves as the upper bound of its tokens."""
MAX_KEY_CHARS = 255
Struct = TypeVar("Struct", bound=msgspec.Struct)
_FIELD = re.compile(r"(?:`\$\.|required field `)([a-z_]+)[^`]*`")
REQUEST_ID = "[A-Za-z0-9._-]{16,64}"
_REQUEST_ID = re.compile(REQUEST_ID, re.ASCII)


class RequestOptions(msgspec.Struct, frozen=True):
    """A request's fields other than the model's inputs. `flush_ms` None: use the setting. `model` None: the first.

    `abandon_after_s`, `record` and `thread` are set by APIs, see `log.records.Submission`. `may_refuse_late`: the
    response can still become an engine's refusal (`streaming.begin_unless_refused`, `whole_response`), so inputs that
    only the model can check are not checked beforehand.
    """

    request_id: str = ""
    flush_ms: int | None = None
    model: str | None = None
    abandon_after_s: float | None = None
    record: bytes = b""
    thread: str = ""
    may_refuse_late: bool = False


REQUEST_OPTIONS = ("request_id", "flush_ms", "model")
"""The options that a client may give."""


def native_options() -> tuple[str, ...]:
    """The options that Everstream's own API takes: a single model may have an input that is called `model`."""
    models = app_context().models
    if models.has_several or "model" not in models.get().inputs:
        return REQUEST_OPTIONS
    return tuple(name for name in REQUEST_OPTIONS if name != "model")


def options_from_json(body: dict[str, Any], names: Sequence[str] = REQUEST_OPTIONS) -> RequestOptions:
    """Remove the options from a JSON body and return them; null counts as absent. Raises InvalidInput."""
    given = {name: body.pop(name, None) for name in names}
    return _options({name: value for name, value in given.items() if value is not None})


def options_from_query(names: Sequence[str]) -> RequestOptions:
    """The options in the request's query. Raises InvalidInput."""
    given: dict[str, Any] = {}
    for name in names:
        texts = request.args.getlist(name)
        if len(texts) > 1:
            raise InvalidInput(f"{name} is given {len(texts)} times, but may be given only once", param=name)
        if texts and texts[0]:
            given[name] = texts[0]
    if given.get("flush_ms", "").isdecimal():
        given["flush_ms"] = int(given["flush_ms"])
    return _options(given)


def _options(given: dict[str, Any]) -> RequestOptions:
    request_id, flush_ms = given.get("request_id", ""), given.get("flush_ms")
    if request_id != "":
        request_id = _checked_request_id(request_id)
    is_whole = isinstance(flush_ms, int) and not isinstance(flush_ms, bool)
    if flush_ms is not None and not (is_whole and 0 <= flush_ms <= MAX_FLUSH_MS):
        raise InvalidInput(f"flush_ms must be a whole number from 0 to {MAX_FLUSH_MS}", param="flush_ms")
    model = given.get("model")
    if model is not None and not isinstance(model, str):
        allowed = ", ".join(app_context().models.names())
        raise InvalidInput(f"model must be the name of a served model: {allowed}", param="model")
    return RequestOptions(request_id, flush_ms, model)


def body() -> dict[str, Any]:
    """The request's JSON object. Raises InvalidInput, TooManyBodies."""
    return inputs.parse_body(body_bytes())


def parsed(given: dict[str, Any], kind: type[Struct]) -> Struct:
    """A body whose struct forbids unknown fields. Raises InvalidInput, which names the field."""
    unknown = next((name for name in given if name not in kind.__struct_fields__), None)
    if unknown is not None:
        raise InvalidInput(f"{unknown!r:.100} is not a field of this request", param=unknown[:100])
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        # "… - at `$.field`", or "Object missing required field `field`".
        named = _FIELD.search(str(error))
        raise InvalidInput(str(error), param=named[1] if named else None) from None


def body_bytes() -> bytes:
    """The request's body, whatever it is. Raises InvalidInput, TooManyBodies."""
    data = request.get_data(cache=False)
    if request.content_length is None and len(data) >= app_context().settings.max_body_bytes:
        # Werkzeug rejects a longer Content-Length, but silently truncates a chunked body.
        raise RequestEntityTooLarge
    return data


def _checked_request_id(given: object) -> str:
    if not (isinstance(given, str) and is_request_id(given)):
        # Anyone who knows a request id can read its generation, so it must be as hard to guess as a generation's id.
        raise InvalidInput(
            "request_id must be 16 to 64 characters of A-Z a-z 0-9 . _ - (for example a UUID)", param="request_id"
        )
    return given


def idempotency_key() -> str:
    """The request id from the request's `Idempotency-Key`; empty: none. Raises InvalidInput."""
    given = request.headers.get("Idempotency-Key", "")
    if not given or is_request_id(given):
        return given
    if not (16 <= len(given) <= MAX_KEY_CHARS and given.isascii() and given.isprintable()):
        raise InvalidInput(
            f"Idempotency-Key must be 16 to {MAX_KEY_CHARS} visible ASCII characters, for example a UUID",
            param="Idempotency-Key",
        )
    return hashlib.sha256(given.encode()).hexdigest()


def stop(generation: str) -> tuple[dict[str, str], int]:
    """Stop a generation that the client may see. Returns a response. Raises UnknownGeneration."""
    state = app_context().log.stop(generation)
    if not state:
        raise UnknownGeneration
    return {"id": generation, "state": state}, 202 if state == "stopping" else 200


def is_request_id(text: str) -> bool:
    return _REQUEST_ID.fullmatch(text) is not None


def start(model: ServedModel, given: dict[str, Any], options: RequestOptions) -> Generation:
    """Queue a generation, or find the one that this request id started. Raises Forbidden."""
    context = app_context()
    who = principal()
    who.check_model(model.name)
    context.limits.count_request(who)
    if who.only_generation:
        raise Forbidden("this ticket reads one generation, and starts none", param="ticket", code="invalid_ticket")
    if model.check_inputs is not None:
        model.check_inputs(given)
    engines = context.log.engines([model.queue])
    if failure := engine_failure(engines):
        raise failure
    _check(given, engines, model, is_late=options.may_refuse_late)
    name = engines[0].model if engines else model.name
    flush_ms = context.settings.flush_ms if options.flush_ms is None else options.flush_ms
    # A ticket starts one generation, however often it is shown.
    submission = Submission(
        request_id=who.ticket or options.request_id,
        abandon_after_s=options.abandon_after_s,
        record=options.record,
        owner=who.owner,
        client=client_of(who),
        limits=context.limits.of(who),
        thread=options.thread,
    )
    with traces.submitting(model.name) as trace:
        job = Job(given, flush_ms, _added(model, given, who), request_id(), who.label, trace)
        context.follower.expect(generation := secrets.token_hex(16))
        started = context.log.submit(generation, job, name, model.queue, submission)
    note_generation(started.id)
    return started


def _added(model: ServedModel, given: dict[str, Any], who: Principal) -> dict[str, Any]:
    """Each owner has a prefix cache of its own: else how soon the first token comes would tell one whether another has
    sent the same prompt."""
    if not who.owner or "cache_salt" not in model.inputs:
        return {}
    salt = f"{who.owner}.{given.get('cache_salt', '')}"
    return {"cache_salt": hashlib.sha256(salt.encode()).hexdigest()}


def tokens_of(model: ServedModel, given: dict[str, Any]) -> list[int]:
    """The token ids of a prompt, as an engine counts them. Raises InvalidInput, TryLater, ModelError, Forbidden."""
    who = principal()
    who.check_model(model.name)
    app_context().limits.count_request(who)
    if model.check_inputs is not None:
        model.check_inputs(given)
    tokens: list[int] = app_context().validator.ask("tokenize", given, client_of(who), model.queue)
    return tokens


def text_of(model: ServedModel, tokens: dict[str, Any]) -> str:
    """The text of a prompt's token ids, as an engine reads them. Raises the same."""
    who = principal()
    who.check_model(model.name)
    app_context().limits.count_request(who)
    text: str = app_context().validator.ask("detokenize", tokens, client_of(who), model.queue)
    return text


def _check(given: dict[str, Any], engines: list[EngineStatus], model: ServedModel, *, is_late: bool) -> None:
    """Refuse what the model can't take. If that is unclear, have an engine check it.

    A token stands for at least one byte, so most prompts pass without asking. If no engine is ready, none is asked: the
    generation itself will end with the same error.
    """
    ready = [engine for engine in engines if engine.state == "ready"]
    refuse_what_cant_fit(given, ready)
    limits = [engine.max_model_len for engine in ready if engine.max_model_len]
    may_be_long = limits and inputs.text_bytes(given) + TEMPLATE_TOKENS >= min(limits)
    if may_be_long or (ready and not is_late and model.must_check(given)):
        app_context().validator.validate(given, client_of(principal()), model.queue)
