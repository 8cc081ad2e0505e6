"""Anthropic's Messages API.

    POST /v1/messages               messages; answered with a message, or with its events
    POST /v1/messages/count_tokens  the same without what concerns the answer: the number of the prompt's tokens

Besides Anthropic's fields, it accepts `chat_template_kwargs` and `cache_salt`, as vLLM's server does, `request_id`,
`flush_ms`, and the headers `Idempotency-Key` and `Last-Event-ID`. An answer that the client's model can't give is
refused; what else has no effect is named in the header `x-everstream-ignored`.
"""

from functools import partial
from typing import Any

import msgspec
from flask import Blueprint, Response

from everstream.apis.anthropic import errors, requests
from everstream.apis.anthropic.descriptions import DESCRIPTION
from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.anthropic.events import MessageEvents
from everstream.apis.anthropic.whole_message import whole_message
from everstream.errors import EverstreamError
from everstream.log.entries import encode_json
from everstream.log.records import Generation
from everstream.web import posts
from everstream.web.access.rules import INFER, allow
from everstream.web.api import Api
from everstream.web.request_ids import request_id
from everstream.web.streaming import admitted
from everstream.web.submission import start, tokens_of
from everstream.web.whole_response import wait_for_all

blueprint = Blueprint("anthropic", __name__)
blueprint.after_request(posts.add_headers)


def error_body(error: EverstreamError) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(errors.error_body(error, request_id()))
    return made


def add_headers(response: Response) -> None:
    response.headers["request-id"] = request_id()


API = Api(
    blueprint,
    ("/v1/messages",),
    error_body,
    formats={"messages": partial(MessageEncoder, has_ids=True)},
    add_headers=add_headers,
    description=DESCRIPTION,
)


@blueprint.post("/v1/messages")
@allow(INFER)
def messages() -> Response:
    return admitted(_respond, has_compact=True)


def _respond() -> Response:
    checked = posts.checked_request(requests.messages)
    if not checked.parsed.is_stream:
        return _whole(start(checked.model, checked.inputs, checked.options))
    return posts.stream(checked, partial(MessageEncoder, has_ids=posts.reads_ids()))


@blueprint.post("/v1/messages/count_tokens")
@allow(INFER)
def count_tokens() -> dict[str, int]:
    checked = posts.checked_request(requests.prompt)
    return {"input_tokens": len(tokens_of(checked.model, checked.inputs))}


def _whole(generation: Generation) -> Response:
    entries = wait_for_all(MessageEncoder(generation, has_ids=False), generation.queue)
    machine = MessageEvents(generation)
    events = [*machine.start(), *(event for entry in entries for event in machine.entry(entry))]
    return Response(encode_json(whole_message(events)), mimetype="application/json")
