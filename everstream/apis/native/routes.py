"""Everstream's own API, and the page.

GET    /                          the page
GET    /stream?prompt=...         start a generation and follow it; with Last-Event-ID: resume it
GET    /models                    {"models": [...]}: each model's state, and the inputs that it takes
POST   /generations               start: 201 {"id", "events_url"}
GET    /generations/<id>          {"id", "text", "state", "finish_reason", "usage", "last"} so far
GET    /generations/<id>/events   follow
DELETE /generations/<id>          stop
GET    /events?generation=...     follow several
"""

import re

from flask import Blueprint, Response, render_template, request

from everstream.apis.native import snapshot
from everstream.apis.native.descriptions import DESCRIPTION
from everstream.apis.native.formats import FORMATS, format_is_an_input, ping_encoder, stream_encoder, wanted_encoder
from everstream.apis.native.model_json import model_json
from everstream.contract import inputs
from everstream.errors import InvalidInput, UnknownGeneration
from everstream.log.records import Generation
from everstream.web import readiness, submission
from everstream.web.access.principal import principal
from everstream.web.access.rules import INFER, PUBLIC, READ, Rule, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.joined_streams import MAX_TOGETHER, follow_together
from everstream.web.json_response import small_json
from everstream.web.pages import html
from everstream.web.resume_point import last_event_id
from everstream.web.sse import GENERATION_ID, EventId, parse_event_id
from everstream.web.static_files import FOLDER
from everstream.web.streaming import admitted, begin, event_stream, resume
from everstream.web.submission import body, native_options, options_from_json, options_from_query, start

_GENERATION = re.compile(GENERATION_ID, re.ASCII)

MODULES = sorted(
    path.relative_to(FOLDER).as_posix()
    for pattern in ("base.js", "client/*.js", "page/*.js", "markdown.js", "markdown/*.js", "vendor/*.js")
    for path in FOLDER.glob(pattern)
    if path.name not in ("theme.js", "katex.js")
)
"""What the page imports, so that a browser can load it all at once instead of level by level."""

FOLLOW = Rule("read", ticket="read")

blueprint = Blueprint("native", __name__)
API = Api(blueprint, formats=FORMATS, description=DESCRIPTION)


@blueprint.get("/")
@allow(PUBLIC)
def page() -> Response:
    return html(render_template("index.html", modules=MODULES, demo=app_context().settings.demo).encode())


@blueprint.get("/stream")
@allow(Rule("infer", ticket="start"))
def stream() -> Response:
    if (seen := last_event_id()) is not None:
        encoder = stream_encoder()
        return admitted(lambda: resume(seen, encoder))
    return admitted(_start_and_follow)


def _start_and_follow() -> Response:
    names = native_options()
    options = options_from_query(names)
    model = app_context().models.get(options.model)
    encoder = stream_encoder()
    own = {*names, "last_event_id", "ticket", *(() if format_is_an_input() else ("format",))}
    query = {name: texts for name, texts in request.args.lists() if name not in own}
    given = inputs.from_query(query, model.inputs, app_context().settings.max_prompt_chars)
    return begin(start(model, given, options), encoder)


@blueprint.get("/models")
@allow(READ)
def models() -> Response:
    context = app_context()
    found = [model_json(each, context.models.find(each.model)) for each in readiness.of_all(context)]
    return small_json({"models": found})


@blueprint.post("/generations")
@allow(INFER)
def submit() -> tuple[dict[str, str], int, dict[str, str]]:
    fields = body()
    options = options_from_json(fields, native_options())
    model = app_context().models.get(options.model)
    given = inputs.from_json(fields, model.inputs, app_context().settings.max_prompt_chars)
    generation = start(model, given, options).id
    location = f"/generations/{generation}"
    return {"id": generation, "events_url": f"{location}/events"}, 201, {"Location": location}


@blueprint.get("/generations/<generation>/events")
@allow(FOLLOW)
def events(generation: str) -> Response:
    if not _GENERATION.fullmatch(generation):
        raise UnknownGeneration
    seen = last_event_id() or EventId(generation, -1)
    if seen.generation != generation:
        raise InvalidInput("Last-Event-ID belongs to a different generation than the URL", param="Last-Event-ID")
    encoder = wanted_encoder()
    return admitted(lambda: resume(seen, encoder), has_compact=True)


@blueprint.get("/events")
@allow(FOLLOW)
def several_events() -> Response:
    seen = {each.generation: each for each in map(_place, request.args.getlist("generation"))}
    if not 1 <= len(seen) <= MAX_TOGETHER:
        raise InvalidInput(f"generation must be given 1 to {MAX_TOGETHER} times", param="generation")
    # EventSource sends the header when it reconnects by itself.
    if header := request.headers.get("Last-Event-ID", ""):
        last = parse_event_id(header, "Last-Event-ID")
        seen |= {last.generation: last} if last.generation in seen else {}
    if request.method == "HEAD":
        return event_stream(iter(()))
    return follow_together(list(seen.values()), ping_encoder)


def _place(text: str) -> EventId:
    """A generation's id, or that of the last event seen of it. Raises InvalidInput."""
    return EventId(text, -1) if _GENERATION.fullmatch(text) else parse_event_id(text, "generation")


@blueprint.get("/generations/<generation>")
@allow(FOLLOW)
def show(generation: str) -> Response:
    return snapshot.show(_known(generation))


@blueprint.delete("/generations/<generation>")
@allow(INFER)
def stop(generation: str) -> tuple[dict[str, str], int]:
    _known(generation)
    return submission.stop(generation)


def _known(generation: str) -> Generation:
    known = app_context().follower.lookup(generation, principal()) if _GENERATION.fullmatch(generation) else None
    if known is None:
        raise UnknownGeneration
    return known
