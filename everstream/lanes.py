"""Work whose time grows with its text, such as tokenizing a prompt, kept from holding up the event loop.

Three lanes by size, so that a prompt waits for others of its like at most: what is short is done at once, as handing it
to a thread would take longer; what is longer, and what is very long, each have threads of their own.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from everstream.log import LONG_TEXT_BYTES

T = TypeVar("T")

SHORT_TEXT_BYTES = 2 << 10
"""200,000 characters take up to a third of a second, so this takes a few milliseconds at most."""
CORES_PER_THREAD = 4
MAX_THREADS = 4


class Lanes:
    """One per process. Its threads start when they are first needed."""

    def __init__(self) -> None:
        threads = max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // CORES_PER_THREAD))
        self._longer = ThreadPoolExecutor(threads, "longer-text")
        self._longest = ThreadPoolExecutor(threads, "longest-text")

    async def run(self, text_bytes: int, work: Callable[[], T]) -> T:
        """Cancelled, it returns at once: work that waits is not begun, and what a thread is at comes to nothing."""
        if text_bytes <= SHORT_TEXT_BYTES:
            return work()
        lane = self._longer if text_bytes <= LONG_TEXT_BYTES else self._longest
        return await asyncio.get_running_loop().run_in_executor(lane, work)
