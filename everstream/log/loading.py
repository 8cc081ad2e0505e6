"""The progress of a model that loads. Only the supervisor sees it, on its engines' progress bars, so it reports it.

In: what `host.progress` reads there. Out: `EngineStatus.progress`, for the web processes.
"""

from contextlib import suppress

import valkey
from valkey.exceptions import ValkeyError

from everstream.log.keys import Keys
from everstream.settings import Settings

KEPT_MS = 5000
"""A few times the interval between two reports: a bar that has ended shows nothing more."""
TIMEOUT_S = 1.0


class LoadingReports:
    """Of one supervisor. A report that fails is left out: the next one follows soon."""

    def __init__(self, settings: Settings) -> None:
        self._namespace = settings.namespace
        self._client = valkey.Valkey.from_url(
            settings.log_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )

    def report(self, queue: str, progress: str) -> None:
        with suppress(ValkeyError):
            self._client.set(Keys(self._namespace, queue).loading, progress, px=KEPT_MS)
