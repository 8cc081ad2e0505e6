"""Reads the log for all streams of a process, in batches.

In: readers that are behind, and generations to look up. Out: entries in the readers' cursors, and the generations'
records. A stream's own greenlet never waits for Valkey; a few greenlets here do. So a slow or absent Valkey delays no
heartbeat, and readers that all return at once do not all query at once. Used by `follower`.
"""

from typing import TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue
from valkey.exceptions import ValkeyError

from everstream.errors import EntriesLost, LogBroken, UnknownGeneration
from everstream.log.records import Generation
from everstream.log.retryable import UNAVAILABLE
from everstream.log.web_log import READ_BYTES, WebLog
from everstream.web import duties
from everstream.web.reader import Reader

GREENLETS = 4
AT_ONCE = 64
RETRY_S = 0.5

T = TypeVar("T")


class LogReads:
    def __init__(self, web_log: WebLog) -> None:
        self._log = web_log
        self._to_read: Queue[Reader] = Queue()
        self._to_look_up: Queue[tuple[str, AsyncResult]] = Queue()

    def start(self) -> None:
        for _ in range(GREENLETS):
            gevent.spawn(self._read_loop)
            gevent.spawn(self._look_up_loop)

    def request(self, reader: Reader) -> None:
        """Queue a read of the log after the reader's position. The reader is woken afterwards."""
        reader.cursor.await_read()
        self._to_read.put(reader)

    def lookup(self, generation: str) -> Generation | None:
        """The generation's record, or None if unknown. Concurrent look-ups share one call. Raises ValkeyError."""
        result = AsyncResult()
        self._to_look_up.put((generation, result))
        found: Generation | None = result.get()
        return found

    def _look_up_loop(self) -> None:
        while True:
            waiting: list[tuple[str, AsyncResult]] = _take(self._to_look_up)
            try:
                found = self._log.lookup([generation for generation, _ in waiting])
            except Exception as error:
                for _, result in waiting:
                    result.set_exception(error)
            else:
                for (_, result), known in zip(waiting, found, strict=True):
                    result.set(known)

    def _read_loop(self) -> None:
        while True:
            readers: list[Reader] = _take(self._to_read)
            try:
                self._read(readers)
            except UNAVAILABLE:
                gevent.sleep(RETRY_S)
                for reader in readers:
                    reader.cursor.end_read([], to_the_end=False)
            except Exception:
                # One reader may have caused the failure, so read for each alone.
                for reader in readers:
                    self._read_or_fail(reader)
            for reader in readers:
                reader.wake()

    def _read_or_fail(self, reader: Reader) -> None:
        try:
            self._read([reader])
        except UNAVAILABLE:
            reader.cursor.end_read([], to_the_end=False)
        except Exception as error:
            duties.report(error, "can't read a generation")
            why = str(error) if isinstance(error, ValkeyError) else "see the server's log"
            reader.cursor.end_read([], to_the_end=True)
            reader.fail(LogBroken(f"the log (Valkey) can't be read: {why}"))

    def _read(self, readers: list[Reader]) -> None:
        places = [(reader.generation, reader.cursor.begin_read()) for reader in readers]
        for reader, page in zip(readers, self._log.read(places, READ_BYTES), strict=True):
            if page is None:
                reader.fail(UnknownGeneration())
            elif page.top < reader.cursor.last:
                sent = reader.cursor.last
                reader.fail(
                    EntriesLost(f"the log of this generation ends at entry {page.top}, but {sent} entries were sent")
                )
            entries = page.entries if page else []
            last = entries[-1].n if entries else reader.cursor.last
            reader.cursor.end_read(entries, to_the_end=page is None or last >= page.top)


def _take(queue: Queue[T]) -> list[T]:
    """Wait for one item, then take all others that are queued, up to AT_ONCE in total."""
    items = [queue.get()]
    while len(items) < AT_ONCE and not queue.empty():
        items.append(queue.get())
    return items
