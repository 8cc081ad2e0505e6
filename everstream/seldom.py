"""Lines in the log about what goes on for as long as it is not mended: each at most once in EVERY_S."""

import logging
import math
import time

EVERY_S = 5.0

_said_at: dict[str, float] = {}


def warning(logger: logging.Logger, message: str, *arguments: object) -> None:
    """As `logger.warning`. Messages that differ only in their arguments count as one."""
    now = time.monotonic()
    if now - _said_at.get(message, -math.inf) >= EVERY_S:
        _said_at[message] = now
        logger.warning(message, *arguments)
