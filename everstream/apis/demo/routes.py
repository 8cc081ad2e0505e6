"""Faults at the press of a button, to show that streams survive them. Served only with EVERSTREAM_DEMO=1.

GET  /demo         {"kills": ["worker", "engine"]}
POST /demo/kill    {"what": "worker"}: the web process that answers dies after its answer
                   {"what": "engine", "model": …}: an engine dies, with its vLLM; within a second

A supervisor starts both again. The engine is told through the log, because it may run on another host.
"""

from http import HTTPStatus

from flask import Blueprint, Response

from everstream.apis.demo.descriptions import DESCRIPTION, NO_ENGINE, Kill, Killing, Kills
from everstream.errors import InvalidInput, TooManyKills, TryLater
from everstream.log.records import EngineStatus
from everstream.processes import kill_this_process
from everstream.web.access.rules import ADMIN, PUBLIC, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.json_response import small_json
from everstream.web.submission import body, parsed

EVERY_S = 5.0
"""At most one kill of each kind in this time, in the whole service."""

blueprint = Blueprint("demo", __name__)
API = Api(blueprint, description=DESCRIPTION, is_served=lambda settings: bool(settings.demo))


@blueprint.get("/demo")
@allow(PUBLIC)
def show() -> Response:
    return small_json(Kills(["worker", "engine"]))


@blueprint.post("/demo/kill")
@allow(ADMIN)
def kill() -> Response:
    wanted = parsed(body(), Kill)
    if wanted.what == "worker" and wanted.model is not None:
        raise InvalidInput("a web process serves all models, so leave model out", param="model")
    return _kill_worker() if wanted.what == "worker" else _kill_engine(wanted.model)


def _kill_worker() -> Response:
    _take_turn("worker")
    response = small_json(Killing("worker"), HTTPStatus.ACCEPTED)
    # By then the kernel has the whole response, and sends it although the process is dead.
    response.call_on_close(kill_this_process)
    return response


def _kill_engine(model: str | None) -> Response:
    engine = _busiest(model)
    _take_turn("engine")
    app_context().log.ask_to_die(engine.name)
    return small_json(Killing("engine", engine.name), HTTPStatus.ACCEPTED)


def _busiest(model: str | None) -> EngineStatus:
    """The engine whose death most generations would notice. Raises InvalidInput, TryLater."""
    context = app_context()
    folders = context.models.served if model is None else [context.models.folder(model)]
    engines = context.log.engines([folder.queue for folder in folders])
    # One that is loading does not listen.
    listening = [engine for engine in engines if engine.state in ("ready", "draining")]
    if not listening:
        raise TryLater("no engine is running that could be killed; try again later", code=NO_ENGINE)
    return max(listening, key=lambda engine: engine.running)


def _take_turn(what: str) -> None:
    if not app_context().log.take_kill_turn(what, EVERY_S):
        raise TooManyKills(f"something of this kind was killed within the last {EVERY_S:g} s; try again later")
