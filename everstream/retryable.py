"""Which of Valkey's errors waiting can heal: one list, for both clients of the log and for all who wait for it.

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


class NotNow(ResponseError):
    """Valkey can't serve this yet, or not until somebody has mended its disk, its cluster or its replicas."""


_CODES = ("BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN", "UNBLOCKED")

UNAVAILABLE = (ValkeyConnectionError, ValkeyTimeoutError, OutOfMemoryError, NotNow)
"""What a call raises while Valkey is down, paused, loading (a ConnectionError), out of memory or a replica, or can't
write its file: wait and try again."""


def refusal(error: BaseException) -> ValkeyError | None:
    """Why a connection was refused. valkey-py's asyncio client disguises that as a lost connection."""
    cause = error.__cause__
    return cause if isinstance(cause, ValkeyError) and not isinstance(cause, UNAVAILABLE) else None


def _teach_parsers() -> None:
    """Add to the table that both clients' parsers look into.

    valkey-py has no classes for some codes, and takes a wrong password for a kind of lost connection.
    """
    known: dict[str, Any] = BaseParser.EXCEPTION_CLASSES
    texts = {text: ResponseError for text, error in known["ERR"].items() if error is AuthenticationError}
    refusals = dict.fromkeys(("NOAUTH", "WRONGPASS"), ResponseError)
    # A primary that was demoted stays one that can't be written to: as a lost connection it is looked for again.
    lost = {"READONLY": ValkeyConnectionError}
    known |= dict.fromkeys(_CODES, NotNow) | refusals | lost | {"ERR": known["ERR"] | texts}


_teach_parsers()
