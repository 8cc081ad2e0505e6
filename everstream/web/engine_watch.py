"""Ends a model's open streams if none of its engines can work with the log, because no more entries will come.

Used by `follower`.
"""

import time

import gevent
from valkey.exceptions import ValkeyError

from everstream.errors import EverstreamError, LogBroken
from everstream.log.records import engine_failure
from everstream.log.retryable import UNAVAILABLE
from everstream.log.web_log import WebLog
from everstream.web import duties
from everstream.web.reader import Readers

EVERY_S = 1.0


class EngineWatch:
    def __init__(self, web_log: WebLog, readers: Readers, lease_s: float) -> None:
        self._log = web_log
        self._readers = readers
        self._lease_s = lease_s
        self._broken_since: dict[str, float] = {}
        """By queue."""

    def start(self) -> None:
        gevent.spawn(duties.repeat, self._end_broken, EVERY_S, "can't read the engines' statuses")

    def _end_broken(self) -> None:
        # All readers of a generation have the same queue.
        queues = {generation: next(iter(readers)).queue for generation, readers in self._readers.items()}
        failures = {queue: self._failure(queue) for queue in set(queues.values())}
        broken = {queue: failure for queue, failure in failures.items() if isinstance(failure, LogBroken)}
        now = time.monotonic()
        self._broken_since = {queue: self._broken_since.get(queue, now) for queue in broken}
        for generation, queue in queues.items():
            # Wait for one lease: after an outage, a healthy engine may not have reported again yet.
            if queue in broken and now - self._broken_since[queue] >= self._lease_s:
                self._end(generation, broken[queue])

    def _failure(self, queue: str) -> EverstreamError | None:
        try:
            return engine_failure(self._log.engines([queue]))
        except UNAVAILABLE:
            raise
        except ValkeyError as error:
            return LogBroken(f"the log (Valkey) can't be read: {error}")

    def _end(self, generation: str, failure: LogBroken) -> None:
        is_in_the_log = True
        try:
            self._log.fail(generation, failure, only_queued=False)
        except UNAVAILABLE:
            raise
        except ValkeyError:
            # The log doesn't even accept the terminal entry. What readers have stays a prefix of the log.
            is_in_the_log = False
        for reader in self._readers.get(generation, ()):
            # A terminal entry that is in the log may not have been published.
            reader.fall_behind()
            if not is_in_the_log:
                reader.fail(failure)
