"""Reads the log for streams, in batches: of generations (`log_reads`), of topics (`topic_follower`).

A stream's own greenlet never waits for Valkey; a few greenlets here do. So a slow or absent Valkey delays no heartbeat,
and streams that all return at once do not all query at once.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import gevent
from gevent.queue import Queue
from valkey.exceptions import ValkeyError

from everstream.errors import EverstreamError, LogBroken
from everstream.log.retryable import UNAVAILABLE
from everstream.web import duties

GREENLETS = 4
AT_ONCE = 64
RETRY_S = 0.5

T = TypeVar("T")


class ReadableCursor(Protocol):
    def await_read(self) -> None:
        """A read is queued."""

    def abort_read(self) -> None:
        """It failed."""


class Readable(Protocol):
    @property
    def cursor(self) -> ReadableCursor:
        """How far the stream is."""

    def wake(self) -> None: ...

    def fail(self, error: EverstreamError) -> None: ...


R = TypeVar("R", bound=Readable)


class ReadQueue(Generic[R]):
    def __init__(self, read: Callable[[list[R]], None], what: str) -> None:
        """`read` gives the cursors of several streams what comes next. `what` it reads, for error messages."""
        self._read = read
        self._what = what
        self._waiting: Queue[R] = Queue()

    def start(self) -> None:
        for _ in range(GREENLETS):
            gevent.spawn(self._loop)

    def request(self, reader: R) -> None:
        """Queue a read of the log after the reader's position. The reader is woken afterwards."""
        reader.cursor.await_read()
        self._waiting.put(reader)

    def _loop(self) -> None:
        while True:
            readers: list[R] = take_waiting(self._waiting)
            try:
                self._read(readers)
            except UNAVAILABLE:
                gevent.sleep(RETRY_S)
                for reader in readers:
                    reader.cursor.abort_read()
            except Exception:
                # One reader may have caused the failure, so read for each alone.
                for reader in readers:
                    self._read_or_fail(reader)
            for reader in readers:
                reader.wake()

    def _read_or_fail(self, reader: R) -> None:
        try:
            self._read([reader])
        except UNAVAILABLE:
            reader.cursor.abort_read()
        except Exception as error:
            duties.report(error, f"can't read {self._what}")
            why = str(error) if isinstance(error, ValkeyError) else "see the server's log"
            reader.cursor.abort_read()
            reader.fail(LogBroken(f"the log (Valkey) can't be read: {why}"))


def take_waiting(queue: "Queue[T]") -> list[T]:
    """Wait for one item, then take all others that are queued, up to AT_ONCE in total."""
    items = [queue.get()]
    while len(items) < AT_ONCE and not queue.empty():
        items.append(queue.get())
    return items
