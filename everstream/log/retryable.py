"""Which of Valkey's errors waiting can cure: one list for both clients of the log and everything that waits for it.

All other errors (NOPERM, WRONGPASS, WRONGTYPE, CROSSSLOT, a script's own) are bugs or wrong settings. Waiting never
clears them, so they are reported at once.
"""

from typing import Any

from valkey._parsers.base import BaseParser
from valkey.exceptions import (
    AuthenticationError,
    OutOfMemoryError,
    ResponseError,
    ValkeyError,
)
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError


class TemporarilyUnavailable(ResponseError):
    """Valkey can't serve this yet, or not until somebody has repaired its disk, its cluster or its replicas."""


_CODES = ("BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN", "UNBLOCKED")

UNAVAILABLE = (ValkeyConnectionError, ValkeyTimeoutError, OutOfMemoryError, TemporarilyUnavailable)
"""Raised while Valkey is down, paused, loading (a ConnectionError), out of memory, a replica, or unable to write its
file: wait and retry."""


def refusal(error: BaseException) -> ValkeyError | None:
    """Why a connection was refused, which valkey-py's asyncio client disguises as a lost connection."""
    cause = error.__cause__
    return cause if isinstance(cause, ValkeyError) and not isinstance(cause, UNAVAILABLE) else None


def _register_error_classes() -> None:
    """Extend the table that both clients' parsers use.

    valkey-py has no classes for some codes, and treats a wrong password as a lost connection.
    """
    known: dict[str, Any] = BaseParser.EXCEPTION_CLASSES
    texts = {text: ResponseError for text, error in known["ERR"].items() if error is AuthenticationError}
    refusals = dict.fromkeys(("NOAUTH", "WRONGPASS"), ResponseError)
    # A demoted primary stays read-only. As a lost connection, the error makes the client look for the primary again.
    lost = {"READONLY": ValkeyConnectionError}
    known |= dict.fromkeys(_CODES, TemporarilyUnavailable) | refusals | lost | {"ERR": known["ERR"] | texts}


_register_error_classes()
