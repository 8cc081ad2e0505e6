"""The UI message stream protocol of Vercel's AI SDK.

    POST /api/chat               messages; answered with the chunks of a message
    GET  /api/chat/<run>/stream  the same chunks again: with `startIndex`, those from that number on
    POST /api/chat/<run>/stop    stop

A run is a generation; its id is in the header `x-workflow-run-id`. In its place, the id of the chat stands for the
newest run. Besides the AI SDK's fields, it accepts the model's inputs, `request_id`, `flush_ms`, and the headers
`Idempotency-Key` and `Last-Event-ID`.
"""

import re
from functools import partial

import msgspec
from flask import Blueprint, Response, request

from everstream.apis.ai_sdk import requests, runs
from everstream.apis.ai_sdk.descriptions import DESCRIPTION
from everstream.apis.ai_sdk.encoder import ChunkEncoder
from everstream.errors import EntriesLost, InvalidInput, UnknownGeneration
from everstream.log.records import Generation, inputs_digest
from everstream.web import posts, submission
from everstream.web.access.rules import INFER, READ, Rule, allow
from everstream.web.api import Api, MakeEncoder
from everstream.web.resume_point import last_event_id
from everstream.web.sse import NUMBER, EventId
from everstream.web.streaming import admitted, begin, resume
from everstream.web.submission import start

CHAT = Rule("infer", takes=("application/json", "text/plain"))
"""`WorkflowChatTransport` posts JSON without saying so, and a browser then calls it text. A page of another site could
post that, too, without asking first, but not without saying where it comes from."""
_INDEX = re.compile(f"-?(?:{NUMBER})", re.ASCII)

blueprint = Blueprint("ai_sdk", __name__)
blueprint.after_request(posts.add_headers)


def any_generation(generation: Generation) -> ChunkEncoder:
    """For `?format=ui-message-stream` of any generation's events."""
    return ChunkEncoder(generation, is_continuation=runs.is_continuation(generation), has_ids=True)


API = Api(blueprint, ("/api/chat",), formats={"ui-message-stream": any_generation}, description=DESCRIPTION)


@blueprint.post("/api/chat")
@allow(CHAT)
def chat() -> Response:
    return admitted(_respond)


@blueprint.get("/api/chat/<run>/stream")
@allow(READ)
def stream(run: str) -> Response:
    return admitted(partial(_follow, run))


@blueprint.post("/api/chat/<run>/stop")
@allow(INFER)
def stop(run: str) -> tuple[dict[str, str], int]:
    found = runs.find(run)
    if found is None:
        raise UnknownGeneration
    return submission.stop(found.id)


def _respond() -> Response:
    checked = posts.checked_request(requests.parse)
    parsed = checked.parsed
    if (seen := last_event_id()) is not None:
        return _named(resume(seen, _encoder(), inputs_digest(checked.inputs, checked.model.queue)), seen.generation)
    options = msgspec.structs.replace(
        checked.options,
        # The client can come back, by the run's id.
        abandon_after_s=None,
        record=runs.CONTINUATION if parsed.is_continuation else b"",
        thread=runs.thread(parsed.chat),
    )
    generation = start(checked.model, checked.inputs, options)
    # A request id may belong to an earlier request, whose record then counts.
    encoder = _encoder() if options.request_id else _encoder(is_continuation=parsed.is_continuation)
    return _named(posts.beginning(checked)(generation, encoder), generation.id)


def _follow(run: str) -> Response:
    start_index, found = _start_index(), runs.find(run)
    if (seen := last_event_id()) is not None:
        return _resume(found, seen)
    if start_index is None:
        # Who asks so wants to know whether the chat has an answer that is still being written.
        is_open = found is not None and found.state == "open"
        return _from(found, 0) if found and is_open else Response(status=204)
    if found is None:
        raise UnknownGeneration
    return _from(found, 0) if start_index == 0 else _from_index(found, start_index)


def _start_index() -> int | None:
    """Below 0: so many chunks before the end. Raises InvalidInput."""
    given = request.args.get("startIndex")
    if given is None:
        return None
    if not _INDEX.fullmatch(given):
        raise InvalidInput("startIndex must be the number of a chunk, or be negative", param="startIndex")
    return int(given)


def _resume(found: Generation | None, seen: EventId) -> Response:
    if found is None:
        raise UnknownGeneration
    if seen.generation != found.id:
        raise InvalidInput("Last-Event-ID belongs to a different run than the URL", param="Last-Event-ID")
    return _named(resume(seen, _encoder()), found.id)


def _from_index(found: Generation, start_index: int) -> Response:
    """Only those chunks that the client has not seen. Raises EntriesLost."""
    made = runs.count(found)
    first = max(made.chunks + start_index, 0) if start_index < 0 else start_index
    if first > made.chunks:
        raise EntriesLost(f"startIndex is {first}, but this run has made only {made.chunks} chunks", param="startIndex")
    is_over = made.is_over and first == made.chunks
    response = Response(status=204) if is_over else _from(found, first)
    response.headers["x-workflow-stream-tail-index"] = str(made.chunks - 1)
    return response


def _from(found: Generation, first: int) -> Response:
    return _named(begin(found, _encoder(first)), found.id)


def _encoder(start_index: int = 0, *, is_continuation: bool | None = None) -> MakeEncoder:
    """`is_continuation` None: the log knows."""
    has_ids = posts.reads_ids()

    def make(generation: Generation) -> ChunkEncoder:
        continues = runs.is_continuation(generation) if is_continuation is None else is_continuation
        return ChunkEncoder(generation, is_continuation=continues, has_ids=has_ids, start_index=start_index)

    return make


def _named(response: Response, run: str) -> Response:
    response.headers["x-vercel-ai-ui-message-stream"] = "v1"
    response.headers["x-workflow-run-id"] = run
    return response
