"""The state of each served model. Used by the routes that report it.

In: the engines' reports in the log. Out: one `Readiness` per served model. Raises ValkeyError if the log can't be read.
"""

from collections.abc import Sequence

import msgspec

from everstream.log.records import EngineStatus
from everstream.model_list import ModelFolder
from everstream.web.context import AppContext
from everstream.web.model_state import ModelState, of_engines


class Readiness(msgspec.Struct, frozen=True):
    """Of one served model."""

    model: str
    engines: list[EngineStatus]
    now: ModelState

    @property
    def max_model_len(self) -> int | None:
        """The context that each of its engines has, in tokens."""
        return min((engine.max_model_len for engine in self.engines if engine.max_model_len), default=None)


def of_all(context: AppContext) -> list[Readiness]:
    return of(context, context.models.served)


def of(context: AppContext, folders: Sequence[ModelFolder]) -> list[Readiness]:
    """The same for some of the served models."""
    engines = context.log.engines([folder.queue for folder in folders])
    return [_of_one(context, folder, engines) for folder in folders]


def _of_one(context: AppContext, folder: ModelFolder, engines: list[EngineStatus]) -> Readiness:
    own = [engine for engine in engines if engine.queue == folder.queue]
    return Readiness(folder.name, own, of_engines(own, context.models.schema_error(folder.name)))
