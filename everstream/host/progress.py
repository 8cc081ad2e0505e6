"""Reports how startup goes, and each later change between ready and not ready. Called by `supervisor`.

In: `/readyz`, and the children's progress bars. Out: lines on the terminal. Each of several models is reported by
itself, because one that can't be loaded doesn't keep people from using the others.
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from everstream.contract import inputs
from everstream.contract.loader import load_schema
from everstream.contract.schema import JSON, Field
from everstream.errors import ModelLoadError
from everstream.host.child_process import ChildProcess
from everstream.host.progress_bar import in_words
from everstream.host.terminal import Terminal
from everstream.log.loading import LoadingReports
from everstream.model_list import ModelFolder
from everstream.settings import Settings

EVERY_S = 0.5
UNKNOWN = "not ready; with API keys, only EVERSTREAM_HEALTH_PORT says why"


class Report(NamedTuple):
    """`models`: the ready ones. `message`: what the others wait for."""

    ready: bool
    models: frozenset[str] = frozenset()
    message: str = ""


class Progress:
    def __init__(
        self,
        settings: Settings,
        children: Sequence[ChildProcess],
        engines: Mapping[str, ChildProcess],
        terminal: Terminal,
        stop: threading.Event,
    ) -> None:
        """`engines`: those of the children that load models, by the models' queues."""
        self._settings = settings
        # A service with keys says nothing but whether it is ready on its main port.
        port = settings.health_port or settings.port
        self._readyz = f"{msgspec.structs.replace(settings, port=port).url}/readyz"
        self._children = children
        self._engines = engines
        self._loading = LoadingReports(settings)
        self._terminal = terminal
        self._stop = stop

    def start(self) -> None:
        """Watch in a separate thread until `stop` is set."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        since, was_ready, told = time.monotonic(), False, frozenset[str]()
        while not self._stop.wait(EVERY_S):
            report = self._ask()
            elapsed_s = time.monotonic() - since
            if report.ready and not was_ready:
                self._terminal.end_progress()
                self._terminal.line(f"ready after {elapsed_s:.0f} s: open {self._settings.url}")
            self._tell(report.models - told)
            if not report.ready:
                since = time.monotonic() if was_ready else since
                self._terminal.progress(report.message, time.monotonic() - since, self._detail)
                self._report_loading()
            was_ready, told = report.ready, report.models

    def _tell(self, ready: frozenset[str]) -> None:
        """How to use the models that are ready now."""
        for model in self._settings.served:
            command = curl_command(self._settings, model) if model.name in ready else ""
            if command:
                self._terminal.line(f"{model.name} is ready: {command}" if model.queue else command)

    def _report_loading(self) -> None:
        for queue, engine in self._engines.items():
            if engine.detail:
                self._loading.report(queue, in_words(engine.detail))

    @property
    def _detail(self) -> str:
        return next((child.detail for child in self._children if child.detail), "")

    def _ask(self) -> Report:
        try:
            with urllib.request.urlopen(self._readyz, timeout=2):  # noqa: S310
                return Report(True, frozenset(model.name for model in self._settings.served))
        except urllib.error.HTTPError as error:
            answer = json.load(error)
            ready = (model["name"] for model in answer.get("models", ()) if model["state"] == "ready")
            return Report(False, frozenset(ready), str(answer.get("message", UNKNOWN)))
        except (OSError, ValueError, http.client.HTTPException):
            return Report(False, message="the web workers are starting")


def curl_command(settings: Settings, model: ModelFolder) -> str:
    """A command that streams from the model with its schema's examples; empty if the schema can't be read."""
    try:
        schema = load_schema(model.path, isolated=bool(model.queue)).inputs
    except ModelLoadError:
        return ""
    given = [("model", model.name)] if model.queue else []
    for name, value in inputs.example(schema).items():
        given += [(name, text) for text in _query_texts(value, schema[name])]
    query = urllib.parse.urlencode(given)
    return f"curl -N '{settings.url}/stream?{query}'"


def _query_texts(value: Any, field: Field) -> list[str]:
    """An example as a query takes it: an array as its items, however it is nested."""
    if field.datatype == JSON or (field.format == "json" and not isinstance(value, str)):
        return [msgspec.json.encode(value).decode()]
    return [item if isinstance(item, str) else msgspec.json.encode(item).decode() for item in inputs.flat(value)]
