"""Warnings about conditions that last until they are fixed. Each is logged at most once per EVERY_S."""

import logging
import math
import time

EVERY_S = 5.0

_logged_at: dict[str, float] = {}


def warning(logger: logging.Logger, message: str, *arguments: object) -> None:
    """Like `logger.warning`. Messages that differ only in their arguments count as one."""
    now = time.monotonic()
    if now - _logged_at.get(message, -math.inf) >= EVERY_S:
        _logged_at[message] = now
        logger.warning(message, *arguments)
