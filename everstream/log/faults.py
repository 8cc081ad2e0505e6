"""What keeps a process from working with the log: errors of Valkey that waiting does not cure. Said in `/readyz`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from valkey.exceptions import ValkeyError

from everstream.log.retryable import UNAVAILABLE

FAULT_S = 5
"""A fault expires after this long without recurring, as there may be no later call whose success would clear it."""


class Faults:
    """One per process."""

    def __init__(self) -> None:
        self._faults: dict[str, tuple[float, str]] = {}

    @property
    def text(self) -> str:
        """In words; empty if no fault is known."""
        recent = {call: message for call, (at, message) in self._faults.items() if time.monotonic() - at < FAULT_S}
        return "; ".join(f"the log (Valkey) refuses {call}: {message}" for call, message in recent.items())

    @contextmanager
    def recording(self, call: str) -> Iterator[None]:
        """Wrap a call that the service depends on."""
        try:
            yield
        except UNAVAILABLE:
            raise
        except ValkeyError as error:
            self._faults[call] = time.monotonic(), str(error)
            raise
        self._faults.pop(call, None)
