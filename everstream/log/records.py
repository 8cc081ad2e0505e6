"""The records that travel through the log besides entries: jobs, generations, engine statuses, validations."""

import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from everstream.contract.prompt_bound import PromptBound
from everstream.contract.schema import Field
from everstream.errors import EverstreamError, LogBroken, ModelLoadError, ModelUnavailable
from everstream.log.api_keys import KeyLimits
from everstream.log.entries import Entry

VALIDATION_TIMEOUT_S = 4
"""How long a web process waits for a `ValidationReply`. Below the command timeout, which also applies to that wait."""


class Page(msgspec.Struct, frozen=True):
    """Consecutive entries of a generation's log. `top` is the n of the log's last entry at that time."""

    entries: list[Entry]
    top: int


class Job(msgspec.Struct, frozen=True):
    """What an engine is to run. `flush_ms`: coalesce outputs that come within this many milliseconds. `added`: inputs
    that are the service's own, not the request's. `http_id`: the HTTP request's, and `key`: its API key's
    name, for logs and metrics. `trace`: the `traceparent` and `tracestate` that an engine's spans continue; none if
    requests are not traced."""

    inputs: dict[str, Any]
    flush_ms: int = 0
    added: dict[str, Any] = {}
    http_id: str = ""
    key: str = ""
    trace: dict[str, str] = {}


class Submission(msgspec.Struct, frozen=True):
    """What is submitted besides the job. `abandon_after_s`: None is the engine's setting. `record`: kept as long as the
    generation, for the API that submitted it. `owner`: who may see it; empty if the service has no keys. Request ids
    are each owner's own. `client`: who takes turns with others in the queue, and whose `limits` these are. `thread`:
    one of the owner's, whose newest generation can be looked up."""

    request_id: str = ""
    abandon_after_s: float | None = None
    record: bytes = b""
    owner: str = ""
    client: str = ""
    limits: KeyLimits = KeyLimits()
    thread: str = ""


PLAIN = Submission()


class Generation(msgspec.Struct, frozen=True):
    """A generation as the log knows it. `state`: open, done, cancelled, failed. `top` is its last entry's n.

    `created` is when it was queued, in Unix seconds. `digest` is the `inputs_digest` of its inputs. `queue` is that of
    its model.
    """

    id: str
    state: str
    model: str
    top: int
    created: int = 0
    digest: str = ""
    queue: str = ""
    owner: str = ""


def inputs_digest(inputs: dict[str, Any], queue: str) -> str:
    """Does not depend on the order of the names. The same inputs for another model are another request."""
    whole = (queue, inputs) if queue else inputs
    return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


class ModelDescription(msgspec.Struct, frozen=True):
    """What an engine publishes about its model, so that a web process needs no model folder.

    `warnings` are about the schema, one line each.
    """

    name: str
    queue: str
    inputs: dict[str, Field]
    is_streaming: bool = True
    warnings: list[str] = []

    def encoded(self) -> bytes:
        """As JSON. Raises ModelLoadError if an example can't be written as JSON."""
        try:
            return msgspec.json.encode(self)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ModelLoadError(f"{self.name}: INPUT_SCHEMA can't be written as JSON: {error}") from None


class EngineStatus(msgspec.Struct, frozen=True):
    """An engine's report about itself. `state`: loading, ready, draining (it waits for the model to end the work for an
    ended generation, or is being replaced because the model does not) or failed (then `code` is model_failed or
    log_error). `error` says why it is not ready, for people.

    `running` counts its generations. If the model has them: `model_requests` is its own count, and `cache_usage` the
    fraction of its key/value cache that is in use.

    `uptime_s`: for how long it has had its model loaded.

    `parent` is the pid of the process that started it; it stays the same when a supervisor restarts the engine.
    `queue` is the one that it claims from. `progress`: how far its model is loaded, as `log.loading` knows.
    """

    name: str
    state: str
    model: str
    error: str = ""
    code: str = "model_failed"
    max_model_len: int | None = None
    running: int = 0
    model_requests: int | None = None
    cache_usage: float | None = None
    parent: int = 0
    prompt_bound: PromptBound | None = None
    queue: str = ""
    uptime_s: int | None = None
    progress: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """A web process's report about itself. `lag_s`: how late its event loop was at most since the last report."""

    name: str
    streams: int = 0
    connections: int = 0
    lag_s: float = 0
    memory_bytes: int = 0
    cpu_s: float = 0
    version: str = ""


Status = TypeVar("Status", WorkerStatus, EngineStatus)


def decode_status(report: bytes, kind: type[Status]) -> Status | None:
    """None: it is from another version, or not ours."""
    try:
        return msgspec.json.decode(report, type=kind)
    except msgspec.DecodeError:
        return None


def engine_failure(engines: Sequence[EngineStatus]) -> EverstreamError | None:
    """Why no engine of a queue can serve, if that is certain: every known one has failed, because of the model or the
    log."""
    if not engines or any(engine.state != "failed" for engine in engines):
        return None
    if broken := next((engine for engine in engines if engine.code == LogBroken.code), None):
        return LogBroken(broken.error)
    return ModelUnavailable(engines[0].error)


class ValidationRequest(msgspec.Struct, frozen=True):
    """Asks any ready engine whether its model can take these inputs, or what another of its methods says of them (see
    `contract.model.ASKED`). `reply` is the list for the reply."""

    reply: str
    inputs: dict[str, Any]
    method: str = "check"


class ValidationReply(msgspec.Struct, frozen=True):
    """An empty `message`: the model can take them, and `result` is what the method returned. `is_bug`: unknown, because
    the model's own method failed."""

    message: str = ""
    param: str | None = None
    code: str = "invalid_request"
    is_bug: bool = False
    result: Any = None
