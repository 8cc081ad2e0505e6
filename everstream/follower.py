"""The one read path: start, resume, a second viewer and a reload are all `follow(generation, after)`.

One follower per web process: one subscription, one decode, many readers. A reader registers first, then reads the log
after its place, then goes live; a gap in the numbers sends it back to the log. Pub/sub may lose messages: a lost last
one shows no gap, so a reader looks into the log at each heartbeat too.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent
from gevent.event import Event

from everstream import log
from everstream.cursor import Cursor
from everstream.errors import UnknownGeneration
from everstream.settings import Settings
from everstream.web_log import UNREACHABLE, WebLog

logger = logging.getLogger(__name__)

READ_COUNT = 512
"""Entries per read of the log: what one reader that is far behind holds in memory at a time."""
POSITIONS_EVERY_S = 0.5
RETRY_S = 0.5


class Queued(NamedTuple):
    """A place in the queue, from 1; 0 once an engine has claimed the generation."""

    position: int


class Reader:
    """One open stream."""

    __slots__ = ("cursor", "generation", "left", "position", "told", "wake")

    def __init__(self, generation: str, after: int, bound: int) -> None:
        self.generation = generation
        self.cursor = Cursor(after, bound)
        self.wake = Event()
        self.left = False
        self.position: int | None = None
        self.told: int | None = None

    def leave(self) -> None:
        """End the stream: the client has gone, or the worker is told to stop."""
        self.left = True
        self.wake.set()


class Follower:
    def __init__(self, web_log: WebLog, settings: Settings) -> None:
        self._log = web_log
        self._settings = settings
        self._readers: dict[str, set[Reader]] = {}
        self._queued: set[Reader] = set()
        self._draining = False
        self._someone_queues = Event()

    def start(self) -> None:
        """Start the two greenlets that serve all readers; once, in the process that serves them."""
        gevent.spawn(self._listen)
        gevent.spawn(self._watch_queue)

    @property
    def reader_count(self) -> int:
        return sum(len(readers) for readers in self._readers.values())

    def drain(self) -> None:
        """End all streams, without a terminal event: the clients come back, elsewhere."""
        self._draining = True
        for readers in self._readers.values():
            for reader in readers:
                reader.leave()

    def reader(self, generation: str, after: int) -> Reader:
        return Reader(generation, after, self._settings.reader_queue)

    def follow(self, reader: Reader) -> Iterator[list[log.Entry] | Queued | None]:
        """Yield entries above the reader's start, until the terminal one; None is a heartbeat, at least every
        heartbeat_s. Ends early when the reader leaves. Raises UnknownGeneration."""
        heartbeat_s = self._settings.heartbeat_s
        with self._registered(reader):
            quiet_since = time.monotonic()
            while not reader.left and not self._draining:
                reader.wake.clear()
                said = self._next(reader)
                quiet_for_s = time.monotonic() - quiet_since
                if said is None and quiet_for_s < heartbeat_s:
                    if not reader.cursor.behind:
                        reader.wake.wait(heartbeat_s - quiet_for_s)
                    continue
                if said is None:
                    reader.cursor.behind = True
                yield said
                quiet_since = time.monotonic()
                if isinstance(said, list) and said[-1].is_terminal:
                    return

    def _next(self, reader: Reader) -> list[log.Entry] | Queued | None:
        """What can be said now, from the log if need be; None: nothing."""
        entries = self._read(reader) if reader.cursor.behind else reader.cursor.take()
        if entries:
            self._queued.discard(reader)
            return entries
        if reader.position != reader.told:
            reader.told = reader.position
            return Queued(reader.position or 0)
        return None

    def _read(self, reader: Reader) -> list[log.Entry]:
        """Read the log; while Valkey is away, the reader stays behind."""
        cursor = reader.cursor
        cursor.begin_read()
        try:
            found = self._log.read(reader.generation, cursor.last, READ_COUNT)
            if not found and self._log.lookup(reader.generation) is None:
                raise UnknownGeneration("this generation is unknown or has expired")
        except UNREACHABLE:
            gevent.sleep(RETRY_S)
            return cursor.end_read([], to_the_end=False)
        return cursor.end_read(found, to_the_end=len(found) < READ_COUNT)

    @contextmanager
    def _registered(self, reader: Reader) -> Iterator[None]:
        readers = self._readers.setdefault(reader.generation, set())
        readers.add(reader)
        if reader.cursor.last <= 0:
            self._queued.add(reader)
            self._someone_queues.set()
        try:
            yield
        finally:
            self._queued.discard(reader)
            readers.discard(reader)
            if not readers:
                del self._readers[reader.generation]

    def _listen(self) -> None:
        """Hand what is appended to the readers, for as long as the process lives."""
        while True:
            try:
                for batch in self._log.subscribe():
                    if not batch:
                        self._all_behind()
                    for generation, entries in batch:
                        self._dispatch(generation, entries)
            except UNREACHABLE as error:
                logger.warning("the subscription was cut, trying again: %s", error)
            except Exception:
                # All streams of this process live off this greenlet; whatever it met, it has to go on.
                logger.exception("the subscription broke, trying again")
            # Not all processes at once, after a restart of Valkey.
            gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311

    def _dispatch(self, generation: str, entries: list[log.Entry]) -> None:
        for reader in self._readers.get(generation, ()):
            for entry in entries:
                reader.cursor.offer(entry)
            reader.wake.set()

    def _all_behind(self) -> None:
        """What was said before the subscription stood was not heard."""
        for readers in self._readers.values():
            for reader in readers:
                reader.cursor.behind = True
                reader.wake.set()

    def _watch_queue(self) -> None:
        """Tell queued readers their place, and of a model that will never come."""
        while True:
            self._someone_queues.wait()
            try:
                self._tell_positions()
            except UNREACHABLE as error:
                logger.warning("the queue can't be read, trying again: %s", error)
            except Exception:
                logger.exception("the queue can't be read, trying again")
            if not self._queued:
                self._someone_queues.clear()
            gevent.sleep(POSITIONS_EVERY_S)

    def _tell_positions(self) -> None:
        # Taken before the queue is read: a reader that comes meanwhile is not in it yet, and not claimed either.
        readers = list(self._queued)
        positions = self._log.positions()
        failure = model_failure(self._log.engines())
        for reader in readers:
            position = positions.get(reader.generation)
            if position is None:
                # Claimed: say so to those who were told a place, and ask no more.
                self._queued.discard(reader)
                position = 0 if reader.told is not None else None
            elif failure:
                self._log.fail_queued(reader.generation, "model_failed", failure)
            if position != reader.position:
                reader.position = position
                reader.wake.set()


def model_failure(engines: list[log.EngineStatus]) -> str:
    """Why no engine can serve, if that is sure: every engine that was heard of failed to load its model."""
    if not engines or any(engine.state != "failed" for engine in engines):
        return ""
    return engines[0].error
