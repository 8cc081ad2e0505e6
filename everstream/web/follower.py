"""The one read path: start, resume, a second viewer and a reload are all a `Reader` of a generation after some entry.

One follower per web process: one subscription, one decode, many readers. A reader first registers, then has the log
read from its position, then goes live. A gap in the numbers sends it back to the log. Pub/sub may lose messages, and a
lost final message leaves no gap, so a reader also has the log read at each heartbeat.

Live entries go straight to the sockets of readers that wait for exactly those (`direct_writer`), so a token wakes no
greenlet. Everything else goes through the reader's cursor and the stream's own greenlet.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import gevent

from everstream.errors import TooManyStreams, Unauthorized
from everstream.log.entries import Entry, split_entries
from everstream.log.records import Generation
from everstream.log.web_log import WebLog
from everstream.settings import Settings
from everstream.web import duties
from everstream.web.access.principal import Principal
from everstream.web.engine_watch import EngineWatch
from everstream.web.live_batch import LiveBatch
from everstream.web.log_reads import LogReads
from everstream.web.process_status import ProcessStatus
from everstream.web.queue_positions import QueuePositions
from everstream.web.read_reports import ReadReports
from everstream.web.reader import Heartbeat, Reader, Readers, StreamClient
from everstream.web.request_ids import note_generation
from everstream.web.sse import Encoder, EngineState, Queued

MAX_BEAT_S = 0.25
"""The longest interval between checks for streams that are due a heartbeat."""
RETRY_S = 0.5
CHECK_KEYS_S = 2.0
"""Between checks for streams whose API key was revoked."""
RETURNS_PER_S = 500
"""About the rate at which a draining worker's readers reconnect elsewhere."""


class Follower:
    def __init__(self, web_log: WebLog, settings: Settings) -> None:
        self.draining = False
        self._drained = False
        self._log = web_log
        self._settings = settings
        self._beat_s = min(MAX_BEAT_S, settings.heartbeat_s / 4)
        self._slots = 0
        self._on_drain: list[Callable[[], None]] = []
        self._readers: Readers = {}
        self._reads = LogReads(web_log)
        self._positions = QueuePositions(web_log)
        self._engines = EngineWatch(web_log, self._readers, settings.lease_s)
        self._reports = ReadReports(
            web_log, self._readers, min(settings.abandon_after_s, settings.post_abandon_after_s)
        )

    def start(self, is_valid: Callable[[str], bool]) -> None:
        """Start the greenlets that serve all readers. Call it once, in the process that serves them. `is_valid`:
        whether a reader's credential is still good."""
        for part in (self._reads, self._positions, self._engines, self._reports):
            part.start()
        gevent.spawn(self._listen)
        end_revoked = partial(self._end_revoked, is_valid)
        gevent.spawn(duties.repeat, end_revoked, CHECK_KEYS_S, "can't look for revoked keys")
        gevent.spawn(duties.repeat, self._wake_silent, self._beat_s, "can't send heartbeats")

    @property
    def status(self) -> ProcessStatus:
        """How this process is."""
        return self._reports.status

    @property
    def reader_count(self) -> int:
        return sum(len(readers) for readers in self._readers.values())

    def _all_readers(self) -> Iterator[Reader]:
        return itertools.chain.from_iterable(self._readers.values())

    def lookup(self, generation: str, viewer: Principal) -> Generation | None:
        """What is known of a generation; None: nothing, or the viewer may not see it. Raises ValkeyError."""
        note_generation(generation)
        known = self._reads.lookup(generation)
        return known if known and viewer.may_see(known) else None

    def mark_read(self, generation: str) -> None:
        """Someone looked at it without following."""
        self._reports.mark_read(generation)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of `log.counters.COUNTERS`."""
        self._reports.count(name, by)

    def admit(self) -> Callable[[], None]:
        """Take one of the worker's stream slots, and return a function that releases it. Raises TooManyStreams."""
        if self._slots >= self._settings.max_streams:
            self.count("streams_refused")
            raise TooManyStreams(f"this process is at its limit of {self._slots} streams; try again later")
        self._slots += 1
        return self._release_slot

    def _release_slot(self) -> None:
        self._slots -= 1

    def drain(self) -> None:
        """End the streams of clients that can reconnect to another process, without a terminal event. The others get up
        to drain_s to reach their end."""
        if self.draining:
            # gunicorn sends SIGTERM every second to a worker that it has replaced.
            return
        self.draining = True
        for reader in self._all_readers():
            if reader.can_return:
                reader.drain()
        for leave in self._on_drain:
            leave()
        gevent.spawn_later(self._settings.drain_s, self._end_the_rest)

    def _end_the_rest(self) -> None:
        self._drained = True
        for reader in self._all_readers():
            reader.drain()

    def on_drain(self, leave: Callable[[], None]) -> None:
        """Call this, too, to end streams that are of no generation."""
        self._on_drain.append(leave)

    def return_after_ms(self) -> int:
        """When a client of a draining worker should reconnect. Random, so that not all come at once."""
        spread_ms = max(self._settings.retry_ms, 1000 * self._slots // RETURNS_PER_S)
        return self._settings.retry_ms + random.randrange(spread_ms)  # noqa: S311

    def reader(self, encoder: Encoder, after: int, queue: str, client: StreamClient) -> Reader:
        return Reader(encoder, after, self._settings.reader_queue_bytes, queue, client)

    def register(self, reader: Reader) -> None:
        """Give the reader its generation's live entries until `unregister`."""
        self._readers.setdefault(reader.generation, set()).add(reader)
        if self._drained or (self.draining and reader.can_return):
            reader.drain()
        if reader.cursor.last <= 0:
            self._positions.add(reader)

    def unregister(self, reader: Reader) -> None:
        self.count("gaps_healed", reader.cursor.gaps)
        self.mark_read(reader.generation)
        self._positions.discard(reader)
        readers = self._readers[reader.generation]
        readers.discard(reader)
        if not readers:
            del self._readers[reader.generation]

    def next(self, reader: Reader) -> list[Entry] | Queued | EngineState | Heartbeat | None:
        """Wait up to heartbeat_s for the next thing to send. None: the reader left, or had to because the worker stops.

        Don't call it after a terminal entry. Raises EverstreamError if the log can't supply the rest.
        """
        # Not a generator: each generator on a waiting greenlet's stack takes half a kilobyte.
        reader.mark_sent()
        while not reader.left:
            if item := self._next(reader):
                return item
            if self._is_silent(reader):
                # A lost final message leaves no gap, so re-read after silence.
                reader.cursor.mark_behind()
                return Heartbeat()
            reader.wait()
        return None

    def _next(self, reader: Reader) -> list[Entry] | Queued | EngineState | None:
        """What can be sent now; None: nothing yet. Requests a read of the log if the reader is behind."""
        cursor = reader.cursor
        if not cursor.reading:
            entries = cursor.take()
            if cursor.behind and not reader.error:
                self._reads.request(reader)
            if entries:
                return entries
        if reader.error:
            raise reader.error
        return reader.take_news()

    def _is_silent(self, reader: Reader) -> bool:
        return time.monotonic() > reader.last_sent_at + self._settings.heartbeat_s - self._beat_s

    def _wake_silent(self) -> None:
        """Replaces a timer for each stream, which would take half a kilobyte."""
        for reader in self._all_readers():
            if reader.is_waiting and self._is_silent(reader):
                reader.wake()

    def _end_revoked(self, is_valid: Callable[[str], bool]) -> None:
        """End the streams of keys that were revoked or have expired."""
        shown = {reader.credential for reader in self._all_readers() if reader.credential}
        if revoked := {credential for credential in shown if not is_valid(credential)}:
            for reader in [each for each in self._all_readers() if each.credential in revoked]:
                reader.fail(Unauthorized("the API key was revoked, or has expired"))

    def _listen(self) -> None:
        """Dispatch live entries to their readers for as long as the process lives."""
        while True:
            try:
                for batches in self._log.subscribe():
                    if not batches:
                        self._mark_all_behind()
                    for generation, first, entries in batches:
                        if readers := self._readers.get(generation):
                            dispatch(readers, LiveBatch(first, split_entries(entries)))
                    # A read that finds data waiting does not yield, so under load no other greenlet would run.
                    gevent.sleep(0)
            except Exception as error:
                # All streams of this process depend on this greenlet, so it must survive any error.
                duties.report(error, "the subscription failed, trying again")
            # Jitter, so that not all processes reconnect at once after a restart of Valkey.
            gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311

    def _mark_all_behind(self) -> None:
        """Entries published before the subscription was in place were missed."""
        for reader in self._all_readers():
            reader.fall_behind()


def dispatch(readers: set[Reader], batch: LiveBatch) -> None:
    """Write to the sockets of readers that wait for exactly this batch. Offer it to the cursors of the others."""
    for reader in readers:
        can_write = reader.writer is not None and reader.is_waiting
        if can_write and (chunk := batch.chunk(reader.encoder)) and reader.cursor.skip(batch.first, batch.last):
            reader.write_directly(chunk)
        else:
            for entry in batch.entries:
                reader.cursor.offer(entry)
            reader.wake()
