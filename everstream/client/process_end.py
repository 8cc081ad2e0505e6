"""What publishers do when their process ends or is forked: `publisher` registers them here."""

import atexit
import logging
import os
import sys
import time
from typing import Protocol

FLUSH_S = 5.0
"""For all together: a service that is away must not keep a program from ending."""
logger = logging.getLogger("everstream.client")


class Buffered(Protocol):
    def flush(self, timeout_s: float) -> bool: ...

    def renew(self) -> None: ...


_all: set[Buffered] = set()
_arranged_in: set[int] = set()
_end_at: list[float] = []
"""When the time is over, once the process ends."""


def watch(buffered: Buffered) -> None:
    """Flush it when its process ends, and renew it in each forked child."""
    _all.add(buffered)


def forget(buffered: Buffered) -> None:
    """It is closed."""
    _all.discard(buffered)


def arrange_flush() -> None:
    """To be called by each process that has something to flush: one of multiprocessing's runs nothing of atexit."""
    if os.getpid() in _arranged_in:
        return
    _arranged_in.add(os.getpid())
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, flush_all, exitpriority=0)


def left_s() -> float | None:
    """How long something may wait to be sent, of what is published while the process ends; None: it does not end."""
    return max(_end_at[0] - time.monotonic(), 0.0) if _end_at else None


def flush_all() -> None:
    _end_at.append(time.monotonic() + FLUSH_S)
    for each in list(_all):
        if not each.flush(left_s() or 0.0):
            logger.warning("the process ends, and not all of its messages are published")


def _renew_all() -> None:
    _end_at.clear()
    for each in list(_all):
        each.renew()


atexit.register(flush_all)
os.register_at_fork(after_in_child=_renew_all)
