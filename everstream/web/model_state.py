"""Whether a model can be used now, and what it waits for if not. Pure.

In: its engines' reports. Out: a `ModelState`. Used by `readiness`, and by `engine_watch` for open streams.
"""

from collections.abc import Sequence

import msgspec

from everstream.errors import LogBroken
from everstream.log.records import EngineStatus, engine_failure


class ModelState(msgspec.Struct, frozen=True):
    """`state`: ready, loading or failed. `waiting_for`: valkey, model or engine; empty if it is ready.

    `message` says in one line what it waits for, and `progress` how far that is, if it is known.
    """

    state: str
    waiting_for: str = ""
    message: str = ""
    progress: str = ""

    @property
    def news(self) -> str:
        """For people who wait."""
        return ": ".join(filter(None, (self.message, self.progress)))


READY = ModelState("ready")


def of_engines(engines: Sequence[EngineStatus], schema_error: str = "") -> ModelState:
    """`engines`: those of the model. `schema_error`: why its schema can't be loaded."""
    if any(engine.state == "ready" for engine in engines):
        return READY
    if failure := engine_failure(engines):
        return ModelState("failed", "valkey" if isinstance(failure, LogBroken) else "model", failure.message)
    if schema_error:
        return ModelState("failed", "model", schema_error)
    if engines:
        return ModelState("loading", "model", _what_it_does(engines[0]), engines[0].progress)
    return ModelState("loading", "engine", "no engine process is reporting")


def _what_it_does(engine: EngineStatus) -> str:
    if engine.state == "draining":
        return f"{engine.model} is draining: {engine.error}"
    return f"{engine.model} is loading" + (f" ({engine.error})" if engine.error else "")
