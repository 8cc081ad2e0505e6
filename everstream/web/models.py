"""The models that this service runs, as the web processes know them. Used by the routes of all APIs.

In: a request's `model`. Out: a `ServedModel`, whose schema the request's inputs are checked against. The schema comes
from the model folder's `input_schema.py`; where that can't be loaded, from the log, where the model's engine publishes
it. The file comes first, because only it has `check_inputs`. A model without either fails alone.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from everstream.contract.loader import SCHEMA_FILE, load_schema
from everstream.contract.schema import Schema
from everstream.errors import EverstreamError, InvalidInput, ModelLoadError, ModelLoading, ModelUnavailable
from everstream.log.records import ModelDescription, engine_failure
from everstream.log.web_log import WebLog
from everstream.model_list import ModelFolder
from everstream.settings import Settings

logger = logging.getLogger(__name__)

DESCRIPTION_FOR_S = 1.0
"""How long a description from the log is reused."""


class ServedModel(msgspec.Struct, frozen=True):
    """`check_inputs` raises InvalidInput. `is_streaming`: it answers piece by piece, not in one piece."""

    name: str
    inputs: Schema
    queue: str
    check_inputs: Callable[[dict[str, Any]], None] | None = None
    is_streaming: bool = True

    def must_check(self, given: Iterable[str]) -> bool:
        """Whether only the model knows if it takes these inputs."""
        return any(self.inputs[name].model_checks for name in given)


class Models:
    """One per web process."""

    def __init__(self, settings: Settings, web_log: WebLog) -> None:
        self._log = web_log
        self.served = settings.served
        self._by_name = {folder.name: folder for folder in self.served}
        self._local: dict[str, ServedModel] = {}
        self._streaming_unknown: set[str] = set()
        """Those whose IS_STREAMING_OUTPUT may be in `app.py`."""
        self._errors: dict[str, str] = {}
        self._described: dict[str, tuple[float, ServedModel]] = {}
        for folder in self.served:
            self._load(folder)

    @property
    def has_several(self) -> bool:
        return bool(self.served[0].queue)

    def names(self) -> list[str]:
        return list(self._by_name)

    def folder(self, name: str | None) -> ModelFolder:
        """The model of this name, or the first one. Raises InvalidInput."""
        folder = self.served[0] if name is None else self._by_name.get(name)
        if folder is None:
            raise InvalidInput(f"the model {name!r:.100} is not served here; {self._list()}", param="model")
        return folder

    def get(self, name: str | None = None) -> ServedModel:
        """The model of this name, or the first one. Raises InvalidInput, ModelUnavailable, ModelLoading, LogBroken."""
        folder = self.folder(name)
        model = self.find(folder.name)
        if model is None:
            raise self._why_unknown(folder)
        return model

    def find(self, name: str) -> ServedModel | None:
        """A served model by its name; None: its schema is not known yet."""
        local = self._local.get(name)
        if local is not None and name not in self._streaming_unknown:
            return local
        described = self._find_described(self._by_name[name])
        if local is None or described is None:
            return local or described
        return msgspec.structs.replace(local, is_streaming=described.is_streaming)

    def only_one_takes(self, name: str) -> bool:
        """Whether a single model is served, and is known to have an input of this name."""
        model = None if self.has_several else self.find(self.served[0].name)
        return model is not None and name in model.inputs

    def schema_error(self, name: str) -> str:
        """Why the model's `input_schema.py` can't be loaded here, in one line; empty if it can, or does not exist."""
        return self._errors.get(name, "")

    def _list(self) -> str:
        names = [repr(name) for name in self._by_name]
        return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names)} are"

    def _load(self, folder: ModelFolder) -> None:
        try:
            schema = load_schema(folder.path, isolated=self.has_several)
            self._check_publishable(folder, schema.inputs)
        except ModelLoadError as error:
            if (folder.path / SCHEMA_FILE).exists():
                self._errors[folder.name] = str(error)
                logger.error("the schema of %s can't be loaded: %s", folder.name, error)
            return
        # Without INPUT_SCHEMA, the inputs may be declared by a class in `app.py`, which only the engine imports.
        if not schema.inputs:
            return
        if schema.is_streaming is None:
            self._streaming_unknown.add(folder.name)
        is_streaming = schema.is_streaming is not False
        self._local[folder.name] = ServedModel(folder.name, schema.inputs, folder.queue, schema.check, is_streaming)

    def _check_publishable(self, folder: ModelFolder, inputs: Schema) -> None:
        """So that `GET /models` can show it. Raises ModelLoadError."""
        ModelDescription(folder.name, folder.queue, dict(inputs)).encoded()

    def _find_described(self, folder: ModelFolder) -> ServedModel | None:
        at, model = self._described.get(folder.name, (0.0, None))
        if model is None or time.monotonic() - at > DESCRIPTION_FOR_S:
            found = self._log.description(folder.queue)
            if found is None:
                return None
            model = ServedModel(folder.name, found.inputs, folder.queue, is_streaming=found.is_streaming)
            self._described[folder.name] = time.monotonic(), model
        return model

    def _why_unknown(self, folder: ModelFolder) -> EverstreamError:
        if failure := engine_failure(self._log.engines([folder.queue])):
            return failure
        if error := self.schema_error(folder.name):
            return ModelUnavailable(error)
        return ModelLoading(f"{folder.name} has not been loaded by any engine yet; try again later")
