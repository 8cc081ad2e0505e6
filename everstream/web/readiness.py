"""Whether each model can be used now, and what it waits for if not. Used by the routes that report this.

In: the engines' reports. Out: one `Readiness` per served model. Raises ValkeyError if the log can't be read.
"""

from collections.abc import Sequence

import msgspec

from everstream.errors import LogBroken
from everstream.log.records import EngineStatus, engine_failure
from everstream.model_list import ModelFolder
from everstream.web.context import AppContext


class Readiness(msgspec.Struct, frozen=True):
    """`state`: ready, loading or failed. `waiting_for`: valkey, model or engine; empty if it is ready.

    `message` says in one line what it waits for.
    """

    model: str
    state: str
    engines: list[EngineStatus]
    waiting_for: str = ""
    message: str = ""

    @property
    def max_model_len(self) -> int | None:
        """The context that each of its engines has, in tokens."""
        return min((engine.max_model_len for engine in self.engines if engine.max_model_len), default=None)


def of_all(context: AppContext) -> list[Readiness]:
    return of(context, context.models.served)


def of(context: AppContext, folders: Sequence[ModelFolder]) -> list[Readiness]:
    """The same for some of the served models."""
    engines = context.log.engines([folder.queue for folder in folders])
    return [
        _of_one(name, [engine for engine in engines if engine.queue == queue], context.models.schema_error(name))
        for name, _, queue in folders
    ]


def _of_one(model: str, engines: list[EngineStatus], schema_error: str) -> Readiness:
    if any(engine.state == "ready" for engine in engines):
        return Readiness(model, "ready", engines)
    if failure := engine_failure(engines):
        waiting_for = "valkey" if isinstance(failure, LogBroken) else "model"
        return Readiness(model, "failed", engines, waiting_for, failure.message)
    if schema_error:
        return Readiness(model, "failed", engines, "model", schema_error)
    if engines:
        return Readiness(model, "loading", engines, "model", _what_it_does(engines[0]))
    return Readiness(model, "loading", engines, "engine", "no engine process is reporting")


def _what_it_does(engine: EngineStatus) -> str:
    if engine.state == "draining":
        return f"{engine.model} is draining: {engine.error}"
    return f"{engine.model} is loading" + (f" ({engine.error})" if engine.error else "")
