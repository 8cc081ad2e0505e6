"""Tokenizes prompts without blocking the event loop.

Three size classes, so that a prompt waits only for others of its size. A short one is tokenized inline, because handing
it to a thread would take longer; longer ones and very long ones have separate threads.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from everstream.contract.prompt_bound import LONG_TEXT_BYTES

T = TypeVar("T")

SHORT_TEXT_BYTES = 2 << 10
"""200,000 characters take up to a third of a second, so this takes a few milliseconds at most."""
CORES_PER_THREAD = 4
MAX_THREADS = 4


class TokenizerPool:
    """One per process. Its threads start on first use."""

    def __init__(self) -> None:
        threads = max(1, min(MAX_THREADS, len(os.sched_getaffinity(0)) // CORES_PER_THREAD))
        self._longer = ThreadPoolExecutor(threads, "longer-text")
        self._longest = ThreadPoolExecutor(threads, "longest-text")

    async def run(self, text_bytes: int, work: Callable[[], T]) -> T:
        """If cancelled, it returns at once: queued work never starts, and the result of running work is dropped."""
        if text_bytes <= SHORT_TEXT_BYTES:
            return work()
        threads = self._longer if text_bytes <= LONG_TEXT_BYTES else self._longest
        return await asyncio.get_running_loop().run_in_executor(threads, work)
