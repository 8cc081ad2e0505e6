"""How long to wait before the next attempt, and when to give up. Pure: callers pass the time."""

import logging
import random
from collections.abc import Callable

from everstream.client.errors import GaveUp, Unavailable

logger = logging.getLogger("everstream.client")

FIRST_S = 0.5
LONGEST_S = 30.0
_MAX_DOUBLINGS = 10


class Backoff:
    """Exponential, with equal jitter: half of each delay is random, so that clients don't come back all at once."""

    def __init__(self, give_up_after_s: float | None, jitter: Callable[[], float] = random.random) -> None:
        """`give_up_after_s`: None: never. `jitter`: from 0 to 1."""
        self.retry_s: float | None = None
        """From the stream's `retry`: the first delay, and the least one. The server adds jitter to it."""
        self._give_up_after_s = give_up_after_s
        self._jitter = jitter
        self._failures = 0
        self._since: float | None = None

    def progressed(self) -> None:
        """Note that an attempt has brought something new."""
        self._failures = 0
        self._since = None

    def failed(self, cause: Unavailable, now: float) -> float:
        """The delay until the next attempt, which it logs. Raises GaveUp."""
        delay = self.delay(cause, now)
        logger.info("trying again in %.1f s: %s", delay, cause)
        return delay

    def delay(self, cause: Unavailable, now: float) -> float:
        """The same without logging, for those that hold a lock."""
        if self._since is None:
            self._since = now
        delay = max(self._own_delay(), self.retry_s or 0.0, cause.retry_after_s)
        self._failures += 1
        if self._give_up_after_s is not None and now - self._since + delay > self._give_up_after_s:
            message = f"gave up after {self._failures} attempts in {now - self._since:.0f} s: {cause.message}"
            raise GaveUp(cause.code, message, status=cause.status) from cause
        return delay

    def _own_delay(self) -> float:
        if self._failures == 0 and self.retry_s is not None:
            return self.retry_s
        longest = min(LONGEST_S, FIRST_S * 2.0 ** min(self._failures, _MAX_DOUBLINGS))
        return longest / 2 * (1 + self._jitter())
