"""The HTTP routes: Flask, under gunicorn's gevent workers. `create_app` makes the application.

    GET    /                          the page
    GET    /stream?prompt=...         start a generation and follow it; with Last-Event-ID: resume it
    POST   /v1/chat/completions, /v1/completions, GET /v1/models: OpenAI's API, see `openai_routes`
    POST   /generations               start: 201 {"id", "events_url"}
    GET    /generations/<id>          {"id", "text", "state", "finish_reason", "usage", "last"} so far
    GET    /generations/<id>/events   follow
    DELETE /generations/<id>          stop
    GET    /healthz, /readyz          this process lives; a model is ready
    GET    /metrics                   counters and gauges of the whole service, for Prometheus

These last three are on a port of their own, too: see `health`.

Bounds: a body has at most 1 MiB, a request line 8,190 bytes (gunicorn), a prompt `max_prompt_chars`, a request id 16
to 64 characters; a process has at most `max_streams` streams, and few prompts under way to an engine's check
(`asking`). A web process keeps nothing that matters; any of them can answer any request.
"""

import logging
import os
import random
import re
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, render_template, request
from valkey.exceptions import ValkeyError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from everstream import contract, inputs, log, metrics, openai_routes, seldom, showing, sse
from everstream.asking import Asking
from everstream.client import trust_proxies
from everstream.errors import (
    BodyTooLarge,
    EverstreamError,
    InvalidInput,
    LogBroken,
    LogUnavailable,
    TryLater,
    UnknownGeneration,
)
from everstream.follower import Follower, engine_failure
from everstream.retryable import UNAVAILABLE
from everstream.settings import REPO_ROOT, Settings, load_settings
from everstream.starting import MAX_BODY_BYTES, TERMS, body, start, terms_from_json, terms_from_query
from everstream.streaming import admitted, event_stream, follow, is_eventsource, last_event_id, resume
from everstream.web import EXTENSION, Web, web
from everstream.web_log import WebLog

logger = logging.getLogger(__name__)

OVERLOAD_RETRY_MS = 5000
_GENERATION = re.compile(r"[0-9a-f]{32}", re.ASCII)

blueprint = Blueprint("everstream", __name__)


def create_app(settings: Settings | None = None) -> Flask:
    """The application, for one worker process. Raises ModelLoadError if the model folder's schema can't be read."""
    settings = settings or load_settings()
    module = contract.load_schema(Path(settings.app_dir).resolve())
    web_log = WebLog(settings)
    app = Flask(__name__, template_folder=str(REPO_ROOT / "templates"), static_folder=str(REPO_ROOT / "static"))
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions[EXTENSION] = Web(
        settings,
        web_log,
        Follower(web_log, settings),
        Asking(web_log),
        module.INPUT_SCHEMA,
        getattr(module, "check_inputs", None),
    )
    trust_proxies(app, settings.proxies)
    app.register_blueprint(blueprint)
    app.register_blueprint(openai_routes.blueprint)
    return app


@blueprint.get("/")
def page() -> Response:
    response = Response(render_template("index.html"))
    # Nothing from elsewhere, nothing inline: what a model says can't become code.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return response


@blueprint.get("/stream")
def stream() -> Response:
    if (seen := last_event_id()) is not None:
        return admitted(lambda: resume(*seen, _events))
    return admitted(_start_and_follow)


def _start_and_follow() -> Response:
    query = {name: texts for name, texts in request.args.lists() if name not in (*TERMS, "last_event_id")}
    given = inputs.from_query(query, web().schema, web().settings.max_prompt_chars)
    return follow(start(given, terms_from_query()), -1, _events)


@blueprint.post("/generations")
def submit() -> tuple[dict[str, str], int, dict[str, str]]:
    wanted = body()
    terms = terms_from_json(wanted)
    given = inputs.from_json(wanted, web().schema, web().settings.max_prompt_chars)
    generation = start(given, terms).id
    location = f"/generations/{generation}"
    return {"id": generation, "events_url": f"{location}/events"}, 201, {"Location": location}


@blueprint.get("/generations/<generation>/events")
def events(generation: str) -> Response:
    if not _GENERATION.fullmatch(generation):
        raise UnknownGeneration
    seen = last_event_id() or (generation, -1)
    if seen[0] != generation:
        raise InvalidInput("Last-Event-ID is of another generation than the address", param="Last-Event-ID")
    return admitted(lambda: resume(*seen, _events))


@blueprint.get("/generations/<generation>")
def show(generation: str) -> Response:
    return showing.show(_known(generation))


@blueprint.delete("/generations/<generation>")
def stop(generation: str) -> tuple[dict[str, str], int]:
    _known(generation)
    state = web().log.stop(generation)
    if not state:
        raise UnknownGeneration
    return {"id": generation, "state": state}, 202 if state == "stopping" else 200


@blueprint.get("/healthz")
def healthz() -> dict[str, Any]:
    return {"status": "ok", "pid": os.getpid(), "streams": web().follower.reader_count}


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    engines: list[log.EngineStatus] = []
    try:
        engines = web().log.engines()
    except UNAVAILABLE:
        return _waiting_for("valkey", "Valkey does not answer")
    except ValkeyError:
        # It is what `fault` says.
        pass
    web().log.probe()
    if fault := web().log.fault:
        return _waiting_for("valkey", fault)
    if any(engine.state == "ready" for engine in engines):
        return {"ready": True, "engines": [_shown(engine) for engine in engines]}, 200
    if failure := engine_failure(engines):
        return _waiting_for("valkey" if isinstance(failure, LogBroken) else "model", failure.message)
    if engines:
        return _waiting_for("model", f"{engines[0].model} is loading")
    return _waiting_for("engine", "no engine process has been heard of")


def _waiting_for(what: str, message: str) -> tuple[dict[str, Any], int]:
    return {"ready": False, "waiting_for": what, "message": message}, 503


@blueprint.get("/metrics")
def show_metrics() -> Response:
    found = web().log
    return Response(metrics.exposition(found.counters(), found.gauges()), content_type=metrics.CONTENT_TYPE)


def _shown(engine: log.EngineStatus) -> dict[str, Any]:
    fields = ("name", "state", "model", "error", "max_model_len", "running", "model_requests")
    return {field: getattr(engine, field) for field in fields}


def _events(generation: log.Generation) -> sse.Events:
    return sse.Events(generation.id, generation.model)


def _known(generation: str) -> log.Generation:
    known = web().follower.lookup(generation) if _GENERATION.fullmatch(generation) else None
    if known is None:
        raise UnknownGeneration
    return known


@blueprint.app_errorhandler(EverstreamError)
def _told(error: EverstreamError) -> tuple[dict[str, Any], int, dict[str, str]] | Response:
    if isinstance(error, TryLater):
        if is_eventsource():
            # Any status but 200 would close an EventSource for good; this one comes back.
            return event_stream(iter([sse.retry(random.randint(OVERLOAD_RETRY_MS, 2 * OVERLOAD_RETRY_MS))]))  # noqa: S311
        return _body_of(error), error.status, {"Retry-After": str(OVERLOAD_RETRY_MS // 1000)}
    return _body_of(error), error.status, {}


def _body_of(error: EverstreamError) -> dict[str, Any]:
    return openai_routes.error_body(error) if openai_routes.is_asked() else error.body()


def _unavailable(error: Exception) -> Any:
    seldom.warning(logger, "Valkey does not answer: %s", error)
    return _told(LogUnavailable("the log (Valkey) does not answer, or takes nothing; try again later"))


for _class in UNAVAILABLE:
    blueprint.app_errorhandler(_class)(_unavailable)


@blueprint.app_errorhandler(ValkeyError)
def _refused(error: ValkeyError) -> Any:
    seldom.warning(logger, "Valkey refuses: %s", error)
    return _told(LogBroken(f"the log (Valkey) refuses what this needs: {error}"))


@blueprint.app_errorhandler(HTTPException)
def _http_error(error: HTTPException) -> tuple[dict[str, Any], int, dict[str, str]] | Response:
    if isinstance(error, RequestEntityTooLarge):
        return _told(BodyTooLarge(f"the body is over {MAX_BODY_BYTES} bytes", param="body"))
    told = EverstreamError(error.description or error.name, code=error.name.lower().replace(" ", "_"))
    told.status = error.code or told.status
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    return _body_of(told), told.status, headers


@blueprint.app_errorhandler(Exception)
def _unexpected(error: Exception) -> tuple[dict[str, Any], int, dict[str, str]] | Response:
    logger.exception("a request failed", exc_info=error)
    return _told(EverstreamError("something went wrong in the server; its log has the details"))


@blueprint.after_app_request
def _headers(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault("Cache-Control", "no-cache" if request.endpoint == "static" else "no-store")
    return response
