"""Tells queued readers their position, and ends queued generations that no engine will claim. Used by `follower`."""

from collections import defaultdict
from functools import partial

import gevent
from gevent.event import Event

from everstream.log.records import engine_failure
from everstream.log.web_log import WebLog
from everstream.web import duties
from everstream.web.reader import Reader
from everstream.web.sse import Queued

CLAIMED_WITHIN_S = 0.1
EVERY_S = 0.5


class QueuePositions:
    def __init__(self, web_log: WebLog) -> None:
        self._log = web_log
        self._readers: set[Reader] = set()
        self._has_readers = Event()

    def start(self) -> None:
        gevent.spawn(self._run)

    def add(self, reader: Reader) -> None:
        """Report positions to this reader until its generation is claimed."""
        self._readers.add(reader)
        self._has_readers.set()

    def discard(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def _run(self) -> None:
        while True:
            self._has_readers.wait()
            # By then an idle engine has usually claimed it, which saves a query.
            gevent.sleep(CLAIMED_WITHIN_S)
            self._update()
            if self._readers:
                gevent.sleep(EVERY_S)
            else:
                self._has_readers.clear()

    def _update(self) -> None:
        self._readers -= {reader for reader in self._readers if reader.cursor.last > 0}
        # Copy before reading the queue: a reader added meanwhile is missing from `positions`, yet not claimed.
        by_queue: defaultdict[str, list[Reader]] = defaultdict(list)
        for reader in self._readers:
            by_queue[reader.queue].append(reader)
        for queue, readers in by_queue.items():
            duties.attempt(partial(self._update_queue, queue, readers), "can't read a queue")

    def _update_queue(self, queue: str, readers: list[Reader]) -> None:
        positions = self._log.positions(queue)
        failure = engine_failure(self._log.engines([queue]))
        for reader in readers:
            position = positions.get(reader.generation)
            if position is None:
                # Claimed: stop tracking it, and tell a client that may believe otherwise. One that watches may have
                # been told on an earlier connection that it is queued.
                self._readers.discard(reader)
                if reader.sent_place is not None or reader.encoder.shows_engines:
                    reader.move_to(Queued(0, len(positions)))
                continue
            if failure:
                self._log.fail(reader.generation, failure, only_queued=True)
            reader.move_to(Queued(position, len(positions)))
