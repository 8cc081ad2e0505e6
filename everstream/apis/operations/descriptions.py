"""What `GET /openapi.json` says about these routes."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from everstream.errors import ErrorBody, InvalidInput
from everstream.web.description import READ, Answer, ApiDescription, Description, Fields, failures
from everstream.web.shared_types import ServedName

Awaited = Literal["valkey", "model", "engine"]


class Alive(Struct):
    """A web process. `streams`: how many it serves now."""

    status: Literal["ok"]
    pid: int
    streams: int


class Version(Struct):
    version: str


class Engine(Struct):
    """An engine process. `model_requests`: the model's own count of its requests."""

    name: str
    state: Literal["ready", "loading", "draining", "failed"]
    model: str
    error: str
    max_model_len: int | None
    running: int
    model_requests: int | None


class ModelState(Struct):
    name: str
    state: Literal["ready", "loading", "failed"]
    waiting_for: Awaited | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Ready(Struct):
    """`models`: if several are served."""

    ready: Literal[True]
    engines: list[Engine]
    models: list[ModelState] | UnsetType = UNSET


class NotReady(Struct):
    ready: Literal[False]
    waiting_for: Awaited
    message: str
    engines: list[Engine] | UnsetType = UNSET
    models: list[ModelState] | UnsetType = UNSET


class ModelQuery(Struct):
    model: ServedName | UnsetType = UNSET


_HEALTH = Description(
    "As vLLM's server has it: whether every model is ready, or the one that is named",
    {200: Answer("Every model is ready."), 503: Answer("Some model is not ready.")},
    failures=failures(InvalidInput),
    query=Fields((ModelQuery,)),
)
DESCRIPTION = ApiDescription(
    "Health, readiness and metrics, for operators and their tools.",
    {
        "healthz": Description("Whether this process is alive", {200: Answer("It is.", Alive)}),
        "health": _HEALTH,
        "version": Description("Everstream's version", {200: Answer("The version.", Version)}),
        "readyz": Description(
            "Whether every served model is ready",
            {200: Answer("Every model is ready.", Ready), 503: Answer("What the first one waits for.", NotReady)},
            failures=failures(InvalidInput),
            query=Fields((ModelQuery,)),
        ),
        "show_metrics": Description(
            "Counters, gauges and histograms of the whole service",
            {200: Answer("Prometheus's text format.", media="text/plain")},
            failures=READ,
        ),
    },
    ErrorBody,
)
