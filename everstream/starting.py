"""From a request's body to a queued generation. Called by the routes of both APIs.

In: what `inputs` has checked, and what the request says beside them (`Terms`). Out: a generation in the queue, or the
one that the same request id started. Raises InvalidInput, RequestConflict, TryLater, ModelUnavailable, LogBroken.
"""

import re
import secrets
from typing import Any

import msgspec
from flask import request
from werkzeug.exceptions import RequestEntityTooLarge

from everstream import inputs, log
from everstream.asking import refuse_what_cant_fit
from everstream.client import client
from everstream.errors import InvalidInput
from everstream.follower import engine_failure
from everstream.settings import MAX_FLUSH_MS
from everstream.web import web

MAX_BODY_BYTES = 1 << 20
TEMPLATE_TOKENS = 512
"""Room left for a chat template when a prompt's bytes are taken as the upper bound of its tokens."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{16,64}", re.ASCII)


class Terms(msgspec.Struct, frozen=True):
    """What a request says beside the model's inputs. `flush_ms` None: what the settings say."""

    request_id: str = ""
    flush_ms: int | None = None


TERMS = Terms.__struct_fields__


def terms_from_json(body: dict[str, Any]) -> Terms:
    """Take the terms out of a JSON body; null counts as not given. Raises InvalidInput."""
    given = {name: body.pop(name, None) for name in TERMS}
    return _terms({name: value for name, value in given.items() if value is not None})


def terms_from_query() -> Terms:
    """The terms in the request's query. Raises InvalidInput."""
    given: dict[str, Any] = {}
    for name in TERMS:
        texts = request.args.getlist(name)
        if len(texts) > 1:
            raise InvalidInput(f"{name} is given {len(texts)} times, allowed is once", param=name)
        if texts and texts[0]:
            given[name] = texts[0]
    if given.get("flush_ms", "").isdecimal():
        given["flush_ms"] = int(given["flush_ms"])
    return _terms(given)


def _terms(given: dict[str, Any]) -> Terms:
    request_id, flush_ms = given.get("request_id", ""), given.get("flush_ms")
    if request_id != "" and not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
        # Whoever knows a request id can read its generation, so it must be as hard to guess as a generation's id.
        raise InvalidInput("request_id must be 16 to 64 of A-Z a-z 0-9 . _ - (a UUID is good)", param="request_id")
    is_whole = isinstance(flush_ms, int) and not isinstance(flush_ms, bool)
    if flush_ms is not None and not (is_whole and 0 <= flush_ms <= MAX_FLUSH_MS):
        raise InvalidInput(f"flush_ms must be a whole number from 0 to {MAX_FLUSH_MS}", param="flush_ms")
    return Terms(request_id, flush_ms)


def body() -> dict[str, Any]:
    """The request's JSON object. Raises InvalidInput, TooManyBodies."""
    data = request.get_data(cache=False)
    if request.content_length is None and len(data) >= MAX_BODY_BYTES:
        # Werkzeug refuses a longer Content-Length, but cuts a chunked body off in silence.
        raise RequestEntityTooLarge
    return inputs.parse_body(data)


def start(given: dict[str, Any], terms: Terms) -> log.Generation:
    """Queue a generation, or find the one that this request id started."""
    if web().check_inputs is not None:
        web().check_inputs(given)
    engines = web().log.engines()
    if failure := engine_failure(engines):
        raise failure
    _check_length(given, engines)
    model = engines[0].model if engines else web().settings.model_name
    flush_ms = web().settings.flush_ms if terms.flush_ms is None else terms.flush_ms
    return web().log.submit(secrets.token_hex(16), log.Job(given, flush_ms), model, terms.request_id)


def _check_length(given: dict[str, Any], engines: list[log.EngineStatus]) -> None:
    """Refuse a prompt that can't fit into the model's context; have an engine count the tokens of one that may not.

    A token stands for at least one byte, so most prompts can be let through without asking. While no engine is ready
    none is asked: the generation itself will end with the same error.
    """
    ready = [engine for engine in engines if engine.state == "ready"]
    refuse_what_cant_fit(given, ready)
    limits = [engine.max_model_len for engine in ready if engine.max_model_len]
    text_bytes = inputs.text_bytes(given)
    if limits and text_bytes + TEMPLATE_TOKENS >= min(limits):
        web().asking.check(given, text_bytes, client())
