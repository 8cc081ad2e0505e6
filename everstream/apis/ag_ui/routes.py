"""AG-UI's protocol: runs of an agent, as TanStack AI, CopilotKit and others ask for them.

    POST   /api/ag-ui           a run's input; answered with its events
    GET    /api/ag-ui?runId=…   the same events again
    DELETE /api/ag-ui?runId=…   stop

A run is a generation. By the id of the last event in `Last-Event-ID`, both go on after it. Besides AG-UI's fields, it
accepts the model's inputs, `model` and `flush_ms` in `forwardedProps`.
"""

from http import HTTPStatus

import msgspec
from flask import Blueprint, Response, request

from everstream.apis.ag_ui import requests
from everstream.apis.ag_ui.descriptions import DESCRIPTION
from everstream.apis.ag_ui.encoder import RunEncoder
from everstream.apis.ag_ui.run_events import Run
from everstream.errors import InvalidInput, UnknownGeneration
from everstream.log.records import Generation
from everstream.web import posts, submission
from everstream.web.access.principal import principal
from everstream.web.access.rules import INFER, READ, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.resume_point import last_event_id
from everstream.web.streaming import admitted, begin, follow, resume
from everstream.web.submission import body, is_request_id

FIRST = "-1"
"""The only offset from which TanStack AI's client asks for a run: its beginning."""

blueprint = Blueprint("ag_ui", __name__)
blueprint.after_request(posts.add_headers)


def any_generation(generation: Generation) -> RunEncoder:
    """For `?format=ag-ui` of any generation's events, and for runs that are found in the log."""
    record = app_context().log.record(generation.id) or b""
    try:
        run = msgspec.json.decode(record, type=Run)
    except msgspec.DecodeError:
        run = Run(generation.id, generation.id)
    return RunEncoder(generation.id, run)


API = Api(blueprint, ("/api/ag-ui",), formats={"ag-ui": any_generation}, description=DESCRIPTION)


@blueprint.post("/api/ag-ui")
@allow(INFER)
def run_agent() -> Response:
    with posts.params_as(lambda param: "runId" if param == "request_id" else param):
        return admitted(_run)


@blueprint.get("/api/ag-ui")
@allow(READ)
def join_run() -> Response:
    return admitted(_join)


def _run() -> Response:
    checked = posts.checked_request(requests.parse, requests.flattened(body()))
    run = checked.parsed.run
    # The client can come back, by the run's id.
    options = msgspec.structs.replace(
        checked.options, abandon_after_s=None, record=msgspec.json.encode(run), thread=_thread(run.run_id)
    )
    return _with_end(posts.stream(checked._replace(options=options), lambda known: RunEncoder(known.id, run)))


def _join() -> Response:
    if request.args.get("offset", FIRST) != FIRST:
        raise InvalidInput("offset must be -1; Last-Event-ID says what was seen", param="offset")
    found = _find(request.args.get("runId", ""))
    if (seen := last_event_id()) is None:
        return begin(found, any_generation)
    if seen.generation != found.id:
        raise InvalidInput("Last-Event-ID belongs to a different run than runId", param="Last-Event-ID")
    return _with_end(resume(seen, any_generation))


@blueprint.delete("/api/ag-ui")
@allow(INFER)
def stop_run() -> tuple[dict[str, str], int]:
    return submission.stop(_find(request.args.get("runId", "")).id)


def _with_end(response: Response) -> Response:
    """A client that comes back although it has seen all gets the last event again: it would take 204 for an error."""
    seen = last_event_id()
    if response.status_code != HTTPStatus.NO_CONTENT or seen is None or seen.n is None:
        return response
    known = app_context().follower.lookup(seen.generation, principal())
    return follow(known, seen, any_generation) if known else response


def _find(run_id: str) -> Generation:
    if not run_id:
        raise InvalidInput("runId is missing", param="runId")
    context, viewer = app_context(), principal()
    newest = context.log.newest(_thread(run_id), viewer.owner) if _thread(run_id) else ""
    if newest and (known := context.follower.lookup(newest, viewer)):
        return known
    raise UnknownGeneration


def _thread(run_id: str) -> str:
    """What the log calls a run. Empty: its id would be too easy to guess for one who has no key."""
    return f"ag-ui/{run_id}" if is_request_id(run_id) else ""
