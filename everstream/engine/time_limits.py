"""Limits for one generation: time without output, and time in all. Used by `generation_task`."""

import asyncio
import time
from collections.abc import Callable


class TimeLimits:
    """Calls `on_exceeded` once, with the reason, unless `stop` comes first. A limit of 0 means none.

    The time in which `is_blocked`, because the log is slow, does not count as time without output.
    """

    def __init__(
        self, idle_s: float, total_s: float, is_blocked: Callable[[], bool], on_exceeded: Callable[[str], None]
    ) -> None:
        self._is_blocked = is_blocked
        self._idle_s = idle_s
        self._total_s = total_s
        self._on_exceeded = on_exceeded
        self._started_at = self._touched_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._started_at = self._touched_at = time.monotonic()
        self._schedule()

    def touch(self) -> float:
        """Note that there was output. Returns the time, because one call of the clock is enough for each output."""
        self._touched_at = now = time.monotonic()
        return now

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        """One timer for both: each output only notes the time."""
        now = time.monotonic()
        left = [self._touched_at + self._idle_s - now] if self._idle_s else []
        left += [self._started_at + self._total_s - now] if self._total_s else []
        if left:
            self._timer = asyncio.get_running_loop().call_later(max(min(left), 0), self._check)

    def _check(self) -> None:
        now = time.monotonic()
        if self._is_blocked():
            self.touch()
        if self._total_s and now - self._started_at >= self._total_s:
            self._on_exceeded(f"the model took more than {self._total_s:g} s (EVERSTREAM_INFER_TIMEOUT_S)")
        elif self._idle_s and now - self._touched_at >= self._idle_s:
            self._on_exceeded(f"the model sent nothing for {self._idle_s:g} s (EVERSTREAM_INFER_IDLE_TIMEOUT_S)")
        else:
            self._schedule()
