"""The HTTP routes: Flask, under gunicorn's gevent workers. `create_app` makes the application.

    GET    /                          the page
    GET    /stream?prompt=...         start a generation and follow it; with Last-Event-ID: resume it
    POST   /generations               start: 201 {"id", "events_url"}
    GET    /generations/<id>          {"id", "state", "text", "finish_reason", "usage"} so far
    GET    /generations/<id>/events   follow
    DELETE /generations/<id>          stop
    GET    /healthz, /readyz          this process lives; a model is ready
    GET    /metrics                   counters and gauges of the whole service, for Prometheus

Bounds: a body has at most 1 MiB, a request line 8,190 bytes (gunicorn), a prompt `max_prompt_chars`, a request id 16
to 64 characters; a process has at most `max_streams` streams. A web process keeps nothing that matters; any of them
can answer any request.
"""

import logging
import os
import random
import re
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, render_template, request, stream_with_context
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge, RequestTimeout

from everstream import contract, inputs, log, metrics, sse
from everstream.errors import (
    BodyTooLarge,
    EntriesLost,
    EverstreamError,
    InvalidInput,
    LogUnavailable,
    ModelUnavailable,
    TryLater,
    UnknownGeneration,
)
from everstream.follower import Follower, Queued, model_failure
from everstream.settings import REPO_ROOT, Settings, load_settings
from everstream.watcher import watching
from everstream.web_log import UNAVAILABLE, WebLog

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
OVERLOAD_RETRY_MS = 5000
PIECE_BYTES = 16 << 10
SEND_BUFFER_BYTES = 64 << 10
"""The kernel takes twice that: what it holds for a client that does not read."""
TEMPLATE_TOKENS = 512
"""Room left for a chat template when a prompt's bytes are taken as the upper bound of its tokens."""

_GENERATION = re.compile(r"[0-9a-f]{32}", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{16,64}", re.ASCII)

blueprint = Blueprint("everstream", __name__)


class Web(msgspec.Struct):
    """What the routes work with, made once per process."""

    settings: Settings
    log: WebLog
    follower: Follower
    schema: inputs.Schema
    check_inputs: Any


def create_app(settings: Settings | None = None) -> Flask:
    """The application, for one worker process. Raises ModelLoadError if the model folder's schema can't be read."""
    settings = settings or load_settings()
    module = contract.load_schema(Path(settings.app_dir).resolve())
    web_log = WebLog(settings)
    app = Flask(__name__, template_folder=str(REPO_ROOT / "templates"), static_folder=str(REPO_ROOT / "static"))
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.extensions["everstream"] = Web(
        settings, web_log, Follower(web_log, settings), module.INPUT_SCHEMA, getattr(module, "check_inputs", None)
    )
    app.register_blueprint(blueprint)
    return app


def web() -> Web:
    found: Web = current_app.extensions["everstream"]
    return found


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
    if (seen := _last_event_id()) is not None:
        return _admitted(lambda: _resume(*seen))
    return _admitted(_start_and_follow)


def _start_and_follow() -> Response:
    query = {name: texts for name, texts in request.args.lists() if name not in ("request_id", "last_event_id")}
    request_ids = request.args.getlist("request_id")
    if len(request_ids) > 1:
        raise InvalidInput(f"request_id is given {len(request_ids)} times, allowed is once", param="request_id")
    given = inputs.from_query(query, web().schema, web().settings.max_prompt_chars)
    generation = _start(given, request_ids[0] if request_ids else "")
    return _follow(_known(generation), after=-1)


@blueprint.post("/generations")
def start() -> tuple[dict[str, str], int, dict[str, str]]:
    body = inputs.parse_body(_body())
    request_id = body.pop("request_id", None) if isinstance(body, dict) else None
    given = inputs.from_json(body, web().schema, web().settings.max_prompt_chars)
    generation = _start(given, "" if request_id is None else request_id)
    location = f"/generations/{generation}"
    return {"id": generation, "events_url": f"{location}/events"}, 201, {"Location": location}


@blueprint.get("/generations/<generation>/events")
def events(generation: str) -> Response:
    if not _GENERATION.fullmatch(generation):
        raise UnknownGeneration
    seen = _last_event_id() or (generation, -1)
    if seen[0] != generation:
        raise InvalidInput("Last-Event-ID is of another generation than the address", param="Last-Event-ID")
    return _admitted(lambda: _resume(*seen))


@blueprint.get("/generations/<generation>")
def show(generation: str) -> dict[str, Any]:
    known = _known(generation)
    web().follower.saw(generation)
    entries = list(web().log.read_all(generation))
    outputs = [msgspec.json.decode(entry.data) for entry in entries if entry.event == log.TOKEN]
    end = msgspec.json.decode(entries[-1].data) if entries and entries[-1].is_terminal else {}
    shown = {
        "id": generation,
        "state": _state(known, entries),
        "text": "".join(str(output.get("text", "")) for output in outputs),
        "finish_reason": end.get("finish_reason"),
        "usage": end.get("usage"),
    }
    if "code" in end:
        shown["error"] = {"code": end["code"], "message": end["message"], "param": end.get("param")}
    return shown


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
    try:
        engines = web().log.engines()
    except UNAVAILABLE:
        return {"ready": False, "waiting_for": "valkey", "message": "Valkey does not answer"}, 503
    if any(engine.state == "ready" for engine in engines):
        return {"ready": True, "engines": [_shown(engine) for engine in engines]}, 200
    if failure := model_failure(engines):
        return {"ready": False, "waiting_for": "model", "message": failure}, 503
    if engines:
        return {"ready": False, "waiting_for": "model", "message": f"{engines[0].model} is loading"}, 503
    return {"ready": False, "waiting_for": "engine", "message": "no engine process has been heard of"}, 503


@blueprint.get("/metrics")
def show_metrics() -> Response:
    found = web().log
    return Response(metrics.exposition(found.counters(), found.gauges()), content_type=metrics.CONTENT_TYPE)


def _shown(engine: log.EngineStatus) -> dict[str, Any]:
    fields = ("name", "state", "model", "error", "max_model_len", "running", "model_requests")
    return {field: getattr(engine, field) for field in fields}


def _body() -> bytes:
    try:
        body = request.get_data(cache=False)
    except ClientDisconnected:
        raise RequestTimeout("the body did not come in time") from None
    if request.content_length is None and len(body) >= MAX_BODY_BYTES:
        # Werkzeug refuses a longer Content-Length, but cuts a chunked body off in silence.
        raise RequestEntityTooLarge
    return body


def _start(given: dict[str, Any], request_id: Any) -> str:
    """Queue a generation, or find the one that this request id started."""
    if web().check_inputs is not None:
        web().check_inputs(given)
    if request_id != "" and not (isinstance(request_id, str) and _REQUEST_ID.fullmatch(request_id)):
        # Whoever knows a request id can read its generation, so it must be as hard to guess as a generation's id.
        raise InvalidInput("request_id must be 16 to 64 of A-Z a-z 0-9 . _ - (a UUID is good)", param="request_id")
    engines = web().log.engines()
    if failure := model_failure(engines):
        raise ModelUnavailable(failure)
    _check_length(given, engines)
    model = engines[0].model if engines else web().settings.model_name
    return web().log.submit(secrets.token_hex(16), given, model, request_id)


def _check_length(given: dict[str, Any], engines: list[log.EngineStatus]) -> None:
    """Let an engine count the tokens of a prompt that could be over the model's context.

    A token stands for at least one byte, so most prompts can be let through without asking. Where no engine answers,
    the generation itself will end with the same error.
    """
    limits = [engine.max_model_len for engine in engines if engine.state == "ready" and engine.max_model_len]
    if limits and inputs.text_bytes(given) + TEMPLATE_TOKENS >= min(limits):
        answer = web().log.ask(given)
        if answer is not None and answer.message:
            raise InvalidInput(answer.message, param=answer.param, code=answer.code)


def _known(generation: str) -> log.Generation:
    known = web().log.lookup(generation) if _GENERATION.fullmatch(generation) else None
    if known is None:
        raise UnknownGeneration
    return known


def _state(known: log.Generation, entries: list[log.Entry]) -> str:
    """queued, running, done, cancelled or failed. The entries were read later, and have the last word."""
    if entries and entries[-1].is_terminal:
        return entries[-1].event
    return "running" if entries or known.id not in web().log.positions() else "queued"


def _last_event_id() -> tuple[str, int | None] | None:
    """What the client saw last: EventSource sends the header; a new EventSource object can only use the query."""
    # The header is the newer one where both are given: a page puts the id into the address once, when it reconnects.
    header = request.headers.get("Last-Event-ID", "")
    if header:
        return sse.parse_event_id(header, "Last-Event-ID")
    query = request.args.get("last_event_id", "")
    return sse.parse_event_id(query, "last_event_id") if query else None


def _resume(generation: str, after: int | None) -> Response:
    """Follow on from entry `after`; None: the generation's expiry was seen."""
    if after is None:
        return Response(status=204)
    known = web().log.lookup(generation)
    if known is None:
        return _event_stream(iter([sse.GREETING, sse.lost_event(generation, UnknownGeneration())]))
    if after > known.top:
        message = f"Last-Event-ID names entry {after}, but the log has only {known.top} of this generation"
        lost = EntriesLost(message, param="Last-Event-ID")
        if _is_eventsource():
            return _event_stream(iter([sse.GREETING, sse.lost_event(generation, lost)]))
        raise lost
    if known.state != "open" and after == known.top:
        # By the standard, 204 stops EventSource for good.
        return Response(status=204)
    return _follow(known, after)


def _is_eventsource() -> bool:
    return sse.MIMETYPE in request.headers.get("Accept", "")


def _admitted(respond: Callable[[], Response]) -> Response:
    """A response that may be a stream: it has one of the worker's places until it is closed."""
    if request.method == "HEAD":
        # Flask answers HEAD with the GET route; a look at the headers must neither start nor follow a generation.
        return _event_stream(iter(()))
    give_back = web().follower.admit()
    try:
        response = respond()
    except BaseException:
        give_back()
        raise
    response.call_on_close(give_back)
    return response


def _follow(known: log.Generation, after: int) -> Response:
    """Stream a generation's entries above `after`; -1 has the `open` event before them."""
    generation = known.id
    settings, follower = web().settings, web().follower
    follower.counted["streams"] += 1
    follower.counted["resumes"] += after > 0
    reader = follower.reader(generation, max(after, 0))
    # Spread a little: the clients of a process that was killed must not all come back in the same instant.
    head = sse.GREETING + sse.retry(random.randint(settings.retry_ms, settings.retry_ms * 3 // 2))  # noqa: S311
    if after < 0:
        head += sse.open_event(generation, known.model)
    connection = request.environ.get("gunicorn.socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def frames() -> Iterator[bytes]:
        with watching(connection, reader.leave):
            yield head
            try:
                for said in follower.follow(reader):
                    if said is None:
                        yield sse.HEARTBEAT
                    elif isinstance(said, Queued):
                        yield sse.queued_event(said.position)
                    else:
                        yield from _pieces([sse.entry_event(generation, entry) for entry in said])
            except (UnknownGeneration, EntriesLost) as error:
                yield sse.lost_event(generation, error)
            if follower.draining:
                yield sse.retry(follower.return_after_ms())

    return _event_stream(frames())


def _pieces(events: list[bytes]) -> Iterator[bytes]:
    """What is sent at a time. Small, as a client that is slow has the send timeout for each, and not for all."""
    piece = b""
    for event in events:
        piece += event
        while len(piece) > PIECE_BYTES:
            yield piece[:PIECE_BYTES]
            piece = piece[PIECE_BYTES:]
    if piece:
        yield piece


def _event_stream(frames: Iterator[bytes]) -> Response:
    response = Response(stream_with_context(frames), mimetype=sse.MIMETYPE)
    response.headers["X-Accel-Buffering"] = "no"
    return response


@blueprint.app_errorhandler(EverstreamError)
def _told(error: EverstreamError) -> tuple[dict[str, Any], int, dict[str, str]] | Response:
    if isinstance(error, TryLater):
        if _is_eventsource():
            # Any status but 200 would close an EventSource for good; this one comes back.
            return _event_stream(iter([sse.retry(random.randint(OVERLOAD_RETRY_MS, 2 * OVERLOAD_RETRY_MS))]))  # noqa: S311
        return error.body(), error.status, {"Retry-After": str(OVERLOAD_RETRY_MS // 1000)}
    return error.body(), error.status, {}


def _unavailable(error: Exception) -> Any:
    logger.warning("Valkey does not answer: %s", error)
    return _told(LogUnavailable("the log (Valkey) does not answer, or takes nothing; try again later"))


for _class in UNAVAILABLE:
    blueprint.app_errorhandler(_class)(_unavailable)


@blueprint.app_errorhandler(HTTPException)
def _http_error(error: HTTPException) -> tuple[dict[str, Any], int, dict[str, str]] | Response:
    if isinstance(error, RequestEntityTooLarge):
        return _told(BodyTooLarge(f"the body is over {MAX_BODY_BYTES} bytes", param="body"))
    status = error.code or 500
    code = (error.name or "error").lower().replace(" ", "_")
    headers = {name: value for name, value in error.get_headers() if name == "Allow"}
    return {"error": {"code": code, "message": error.description, "param": None}}, status, headers


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
