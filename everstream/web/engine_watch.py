"""Tells readers what their model's engines do, and ends their streams if no engine can work with the log, because no
more entries will come. Used by `follower`.
"""

import time
from collections import defaultdict
from collections.abc import Mapping

import gevent
from valkey.exceptions import ValkeyError

from everstream.errors import EverstreamError, LogBroken
from everstream.log.records import EngineStatus, engine_failure
from everstream.log.retryable import UNAVAILABLE
from everstream.log.web_log import WebLog
from everstream.web import duties
from everstream.web.model_state import of_engines
from everstream.web.reader import Readers
from everstream.web.sse import EngineState

EVERY_S = 1.0


class EngineWatch:
    def __init__(self, web_log: WebLog, readers: Readers, lease_s: float) -> None:
        self._log = web_log
        self._readers = readers
        self._lease_s = lease_s
        self._broken_since: dict[str, float] = {}
        """By queue."""

    def start(self) -> None:
        gevent.spawn(duties.repeat, self._watch, EVERY_S, "can't read the engines' statuses")

    def _watch(self) -> None:
        generations = defaultdict[str, list[str]](list)
        for generation, readers in self._readers.items():
            # All readers of a generation have the same queue.
            generations[next(iter(readers)).queue].append(generation)
        self._end_broken(generations, {queue: self._look_at(queue, own) for queue, own in generations.items()})

    def _look_at(self, queue: str, generations: list[str]) -> EverstreamError | None:
        """Tell these generations' readers the state of the queue's engines. Return why none of the engines can serve,
        if that is certain."""
        try:
            engines = self._log.engines([queue])
        except UNAVAILABLE:
            raise
        except ValkeyError as error:
            return LogBroken(f"the log (Valkey) can't be read: {error}")
        self._tell(generations, engines)
        return engine_failure(engines)

    def _tell(self, generations: list[str], engines: list[EngineStatus]) -> None:
        now = of_engines(engines)
        state = EngineState(now.state, now.news)
        for generation in generations:
            # Some may have left while the engines were read.
            for reader in list(self._readers.get(generation, ())):
                if reader.encoder.shows_engines:
                    reader.tell_engine(state)

    def _end_broken(self, generations: Mapping[str, list[str]], failures: Mapping[str, EverstreamError | None]) -> None:
        """Both by queue."""
        broken = {queue: failure for queue, failure in failures.items() if isinstance(failure, LogBroken)}
        now = time.monotonic()
        self._broken_since = {queue: self._broken_since.get(queue, now) for queue in broken}
        for queue, failure in broken.items():
            # Wait for one lease: after an outage, a healthy engine may not have reported again yet.
            if now - self._broken_since[queue] >= self._lease_s:
                for generation in generations[queue]:
                    self._end(generation, failure)

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
