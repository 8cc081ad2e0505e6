"""Reports how startup goes, and each later change between ready and not ready. Called by `supervisor`.

In: `/readyz`, and the children's progress bars. Out: lines on the terminal.
"""

import http.client
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from everstream.contract import inputs
from everstream.contract.loader import load_schema
from everstream.errors import ModelLoadError
from everstream.host.child_process import ChildProcess
from everstream.host.terminal import Terminal
from everstream.settings import Settings

EVERY_S = 0.5


class Progress:
    def __init__(
        self, settings: Settings, children: Sequence[ChildProcess], terminal: Terminal, stop: threading.Event
    ) -> None:
        self._settings = settings
        self._children = children
        self._terminal = terminal
        self._stop = stop

    def start(self) -> None:
        """Watch in a separate thread until `stop` is set."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        since, was_ready = time.monotonic(), False
        while not self._stop.wait(EVERY_S):
            ready, message = self._ask()
            elapsed_s = time.monotonic() - since
            if ready and not was_ready:
                self._terminal.end_progress()
                self._terminal.line(f"ready after {elapsed_s:.0f} s: open {self._settings.url}")
                if command := curl_command(self._settings):
                    self._terminal.line(command)
            elif not ready:
                since = time.monotonic() if was_ready else since
                self._terminal.progress(message, time.monotonic() - since, self._detail)
            was_ready = ready

    @property
    def _detail(self) -> str:
        return next((child.detail for child in self._children if child.detail), "")

    def _ask(self) -> tuple[bool, str]:
        try:
            with urllib.request.urlopen(f"{self._settings.url}/readyz", timeout=2):  # noqa: S310
                return True, ""
        except urllib.error.HTTPError as error:
            return False, str(json.load(error)["message"])
        except (OSError, ValueError, http.client.HTTPException):
            return False, "the web workers are starting"


def curl_command(settings: Settings) -> str:
    """A command that streams from the model with its schema's examples; empty if the schema can't be read."""
    try:
        schema = load_schema(Path(settings.app_dir).resolve()).inputs
    except ModelLoadError:
        return ""
    query = urllib.parse.urlencode(inputs.example(schema), doseq=True)
    return f"curl -N '{settings.url}/stream?{query}'"
