"""Reads the log for all streams of generations of a process, in batches.

In: readers that are behind, and generations to look up. Out: entries in the readers' cursors, and the generations'
records. Used by `follower`.
"""

import gevent
from gevent.event import AsyncResult
from gevent.queue import Queue

from everstream.errors import EntriesLost, UnknownGeneration
from everstream.log.records import Generation
from everstream.log.web_log import READ_BYTES, WebLog
from everstream.web.read_queue import GREENLETS, ReadQueue, take_waiting
from everstream.web.reader import Reader


class LogReads:
    def __init__(self, web_log: WebLog) -> None:
        self._log = web_log
        self._reads = ReadQueue(self._read, "a generation")
        self._to_look_up: Queue[tuple[str, AsyncResult]] = Queue()

    def start(self) -> None:
        self._reads.start()
        for _ in range(GREENLETS):
            gevent.spawn(self._look_up_loop)

    def request(self, reader: Reader) -> None:
        """Queue a read of the log after the reader's position. The reader is woken afterwards."""
        self._reads.request(reader)

    def lookup(self, generation: str) -> Generation | None:
        """The generation's record, or None if unknown. Concurrent look-ups share one call. Raises ValkeyError."""
        result = AsyncResult()
        self._to_look_up.put((generation, result))
        found: Generation | None = result.get()
        return found

    def _look_up_loop(self) -> None:
        while True:
            waiting: list[tuple[str, AsyncResult]] = take_waiting(self._to_look_up)
            try:
                found = self._log.lookup([generation for generation, _ in waiting])
            except Exception as error:
                for _, result in waiting:
                    result.set_exception(error)
            else:
                for (_, result), known in zip(waiting, found, strict=True):
                    result.set(known)

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
