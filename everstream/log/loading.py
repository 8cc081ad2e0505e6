"""How far a model is loaded, as its engine's progress bars show. Only the supervisor sees those, so it reports them.

In: a bar's text, from `host.progress`. Out: `EngineStatus.progress`, for the web processes.
"""

import re
from contextlib import suppress

import valkey
from valkey.exceptions import ValkeyError

from everstream.log.keys import Keys
from everstream.settings import Settings

KEPT_MS = 5000
"""A few times the interval between two reports: a bar that has ended shows nothing more."""
TIMEOUT_S = 1.0
MAX_CHARS = 100
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"\s*(?:\|[^|]*\||Completed)\s*|\[[^\]]*\]|\s+")


class LoadingReports:
    """Of one supervisor. A report that fails is left out: the next one follows soon."""

    def __init__(self, settings: Settings) -> None:
        self._namespace = settings.namespace
        self._client = valkey.Valkey.from_url(
            settings.log_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )

    def report(self, queue: str, bar: str) -> None:
        with suppress(ValkeyError):
            self._client.set(Keys(self._namespace, queue).loading, in_words(bar), px=KEPT_MS)


def in_words(bar: str) -> str:
    """Without the bar itself, and the times: `Loading shards: 50%|█████     | 1/2 [00:01<00:01]` is
    `Loading shards: 50% 1/2`."""
    text = "".join(char for char in _ESCAPES.sub("", bar) if char.isprintable())
    return _BAR.sub(" ", text).strip()[:MAX_CHARS]
