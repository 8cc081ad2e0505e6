"""Periodic work for all streams of a web process, which must survive any error. Used by the read path's greenlets."""

import logging
from collections.abc import Callable
from typing import NoReturn

import gevent
from valkey.exceptions import ValkeyError

from everstream.web import throttled_logging

logger = logging.getLogger(__name__)


def repeat(duty: Callable[[], None], every_s: float, what: str) -> NoReturn:
    """Run `duty` after each pause, for as long as the process lives. `what` describes its failure in the log."""
    while True:
        gevent.sleep(every_s)
        attempt(duty, what)


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
