"""Health, readiness and metrics.

    GET /healthz    this process is alive
    GET /readyz     a model is ready; else 503, with what it is waiting for
    GET /metrics    counters and gauges of the whole service, for Prometheus

A separate port serves them too: see `web.health_listener`.
"""

import os
from typing import Any

from flask import Blueprint, Response
from valkey.exceptions import ValkeyError

from everstream.apis.operations import metrics
from everstream.errors import LogBroken
from everstream.log.records import EngineStatus, engine_failure
from everstream.log.retryable import UNAVAILABLE
from everstream.web.api import Api
from everstream.web.context import app_context

blueprint = Blueprint("operations", __name__)
API = Api(blueprint)

_SHOWN_FIELDS = ("name", "state", "model", "error", "max_model_len", "running", "model_requests")


@blueprint.get("/healthz")
def healthz() -> dict[str, Any]:
    return {"status": "ok", "pid": os.getpid(), "streams": app_context().follower.reader_count}


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    log = app_context().log
    engines: list[EngineStatus] = []
    try:
        engines = log.engines()
    except UNAVAILABLE:
        return _waiting_for("valkey", "Valkey does not answer")
    except ValkeyError:
        # `log.fault` reports it below.
        pass
    log.probe()
    if fault := log.fault:
        return _waiting_for("valkey", fault)
    if any(engine.state == "ready" for engine in engines):
        return {"ready": True, "engines": [_engine_json(engine) for engine in engines]}, 200
    if failure := engine_failure(engines):
        return _waiting_for("valkey" if isinstance(failure, LogBroken) else "model", failure.message)
    if engines:
        return _waiting_for("model", _what_it_does(engines[0]))
    return _waiting_for("engine", "no engine process is reporting")


def _what_it_does(engine: EngineStatus) -> str:
    if engine.state == "stopping":
        return f"{engine.model} is stopping: {engine.error}"
    return f"{engine.model} is loading" + (f" ({engine.error})" if engine.error else "")


def _waiting_for(what: str, message: str) -> tuple[dict[str, Any], int]:
    return {"ready": False, "waiting_for": what, "message": message}, 503


def _engine_json(engine: EngineStatus) -> dict[str, Any]:
    return {field: getattr(engine, field) for field in _SHOWN_FIELDS}


@blueprint.get("/metrics")
def show_metrics() -> Response:
    log = app_context().log
    return Response(metrics.exposition(log.counters(), log.gauges()), content_type=metrics.CONTENT_TYPE)
