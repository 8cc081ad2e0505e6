"""Reports to the log which generations have readers, so that engines know the abandoned ones. Also flushes counters,
and says how this process is.

Used by `follower`.
"""

from collections import Counter

import gevent

from everstream.log.retryable import UNAVAILABLE
from everstream.log.web_log import WebLog
from everstream.web import duties
from everstream.web.open_streams import OpenStreams
from everstream.web.process_status import ProcessStatus
from everstream.web.reader import Readers

EVERY_S = 1.0
"""Shorter if abandon_after_s is short."""


class ReadReports:
    def __init__(self, web_log: WebLog, readers: Readers, streams: OpenStreams, abandon_after_s: float) -> None:
        self.status = ProcessStatus()
        self._log = web_log
        self._readers = readers
        self._streams = streams
        self._every_s = min(EVERY_S, abandon_after_s / 4)
        self._seen: set[str] = set()
        self._counted: Counter[str] = Counter()

    def start(self) -> None:
        self.status.start()
        gevent.spawn(duties.repeat, self._report, self._every_s, "can't report which generations have readers")

    def mark_read(self, generation: str) -> None:
        """Note that a client looked at the generation, or followed it until now."""
        self._seen.add(generation)

    def count(self, name: str, by: int = 1) -> None:
        """`name` is one of `log.counters.COUNTERS`."""
        self._counted[name] += by

    def _report(self) -> None:
        seen, counted = self._seen | self._readers.keys(), +self._counted
        # When the last one ends, its generation has just been read.
        self._seen, self._counted = set(), Counter()
        try:
            self._log.touch(seen, counted, worker=self.status.report(len(self._streams)))
        except UNAVAILABLE:
            self._seen |= seen
            self._counted += counted
            raise
