"""Health, readiness and metrics.

    GET /healthz    this process is alive
    GET /readyz     every served model is ready, or the one that `?model=` names; else 503, with what it waits for
    GET /health, /ping, /version    what vLLM's server has: 200 once every model is ready, and a version
    GET /metrics    counters, gauges and histograms of the whole service, for Prometheus

A separate port serves them too: see `web.health_listener`. If clients need keys, that port alone shows them /metrics,
and which engines there are.
"""

import os
from typing import Any

from flask import Blueprint, Response
from valkey.exceptions import ValkeyError

from everstream import __version__
from everstream.apis.operations import metrics
from everstream.apis.operations.descriptions import DESCRIPTION
from everstream.errors import NotSupported
from everstream.log.records import EngineStatus
from everstream.log.retryable import UNAVAILABLE
from everstream.web import readiness
from everstream.web.access.rules import ADMIN, PUBLIC, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.health_listener import is_check
from everstream.web.readiness import Readiness
from everstream.web.submission import options_from_query

blueprint = Blueprint("operations", __name__)
API = Api(blueprint, description=DESCRIPTION)

_SHOWN_FIELDS = ("name", "state", "model", "error", "max_model_len", "running", "model_requests")


@blueprint.get("/healthz")
@allow(PUBLIC)
def healthz() -> dict[str, Any]:
    return {"status": "ok", "pid": os.getpid(), "streams": len(app_context().streams)}


@blueprint.get("/health")
@blueprint.get("/ping")
@allow(PUBLIC)
def health() -> Response:
    _, status = _readiness()
    return Response(status=status)


@blueprint.get("/version")
@allow(PUBLIC)
def version() -> dict[str, str]:
    return {"version": __version__}


@blueprint.get("/readyz")
@allow(PUBLIC)
def readyz() -> tuple[dict[str, Any], int]:
    answer, status = _readiness()
    # Clients learn whether to come back.
    return (answer if _is_for_operators() else {"ready": answer["ready"]}), status


def _readiness() -> tuple[dict[str, Any], int]:
    context = app_context()
    name = options_from_query(("model",)).model
    wanted = [context.models.folder(name)] if name else context.models.served
    models: list[Readiness] = []
    try:
        models = readiness.of(context, wanted)
    except UNAVAILABLE:
        return _waiting_for("valkey", "Valkey does not answer")
    except ValkeyError:
        # `log.fault` reports it below.
        pass
    context.log.probe()
    if fault := context.log.fault:
        return _waiting_for("valkey", fault)
    return _of_several(models) if context.models.has_several and not name else _of_one(models[0])


def _is_for_operators() -> bool:
    try:
        return is_check() or not app_context().credentials.are_required
    except ValkeyError:
        # Nobody knows yet whether there are keys.
        return False


def _of_one(model: Readiness) -> tuple[dict[str, Any], int]:
    if model.now.state == "ready":
        return {"ready": True, "engines": _engines_json([model])}, 200
    return _waiting_for(model.now.waiting_for, model.now.message)


def _of_several(models: list[Readiness]) -> tuple[dict[str, Any], int]:
    """Ready once each model is. Otherwise the message says what each of the others waits for."""
    details = {"engines": _engines_json(models), "models": [_model_json(model) for model in models]}
    unready = [model for model in models if model.now.state != "ready"]
    if not unready:
        return {"ready": True, **details}, 200
    message = "; ".join(f"{each.model}: {each.now.message}" for each in unready)
    answer, status = _waiting_for(unready[0].now.waiting_for, message)
    return answer | details, status


def _waiting_for(what: str, message: str) -> tuple[dict[str, Any], int]:
    return {"ready": False, "waiting_for": what, "message": message}, 503


def _model_json(model: Readiness) -> dict[str, Any]:
    now = model.now
    waiting = {"waiting_for": now.waiting_for, "message": now.message} if now.waiting_for else {}
    return {"name": model.model, "state": now.state, **waiting}


def _engines_json(models: list[Readiness]) -> list[dict[str, Any]]:
    return [_engine_json(engine) for model in models for engine in model.engines]


def _engine_json(engine: EngineStatus) -> dict[str, Any]:
    return {field: getattr(engine, field) for field in _SHOWN_FIELDS}


@blueprint.get("/metrics")
@allow(ADMIN)
def show_metrics() -> Response:
    port = app_context().settings.health_port
    if port and not _is_for_operators():
        raise NotSupported(f"port {port} has the metrics (EVERSTREAM_HEALTH_PORT)", code="not_found")
    log = app_context().log
    return Response(metrics.exposition(log.figures(), log.valkey_info()), content_type=metrics.CONTENT_TYPE)
