"""Periodic work for all streams of a web process, which must survive any error. Used by the read path's greenlets."""

import logging
import time
from collections.abc import Callable
from typing import NoReturn

import gevent
from valkey.exceptions import ValkeyError

from everstream.web import throttled_logging

logger = logging.getLogger(__name__)


def repeat(duty: Callable[[], None], every_s: float, what: str) -> NoReturn:
    """Run `duty` about every `every_s`, for as long as the process lives. `what` describes its failure in the log."""
    while True:
        gevent.sleep(pause(every_s))
        attempt(duty, what)


def pause(every_s: float) -> float:
    """How long to wait for the next multiple of `every_s`, at least half of it. All duties wait for such moments, so
    that many share one waking of the process, which costs more than most of them."""
    left = every_s - time.monotonic() % every_s
    return left if left > every_s / 2 else left + every_s


def attempt(duty: Callable[[], None], what: str) -> None:
    try:
        duty()
    except Exception as error:
        report(error, f"{what}, trying again")


def report(error: Exception, what: str) -> None:
    """Log a Valkey error as one line. Any other error is a bug of ours, so log its traceback."""
    if isinstance(error, ValkeyError):
        throttled_logging.warning(logger, f"{what}: %s", error)
    else:
        logger.exception(what, exc_info=error)
