"""The models that this service runs, as the web processes know them. Used by the routes of all APIs.

In: a request's `model`. Out: a `ServedModel`, whose schema the request's inputs are checked against.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from everstream.contract.loader import load_schema
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput
from everstream.settings import Settings


class ServedModel(msgspec.Struct, frozen=True):
    """`check_inputs` raises InvalidInput. `is_streaming`: it answers piece by piece, not in one piece."""

    name: str
    inputs: Schema
    check_inputs: Callable[[dict[str, Any]], None] | None = None
    is_streaming: bool = True


class Models:
    """One per web process."""

    def __init__(self, settings: Settings) -> None:
        schema = load_schema(settings.app_path)
        self._only = ServedModel(settings.model_name, schema.inputs, schema.check, schema.is_streaming)

    def names(self) -> list[str]:
        return [self._only.name]

    def get(self, name: str | None = None) -> ServedModel:
        """The model of this name, or the first one. Raises InvalidInput, ModelUnavailable, TryLater."""
        if name not in (None, self._only.name):
            raise InvalidInput(f"the model {name[:100]!r} is not served here; {self._only.name!r} is", param="model")
        return self._only
