"""The one read path: start, resume, a second viewer and a reload are all a `Reader` of a generation after some entry.

One follower per web process: one subscription, one decode, many readers. A reader first registers, then has the log
read from its position, then goes live. A gap in the numbers sends it back to the log. Pub/sub may lose messages, and a
lost final message leaves no gap, so a reader also has the log read at each heartbeat. A process that has had no readers
for a while ends its subscription at the next message, so that it is not woken by the tokens of others.

Live entries go straight to the sockets of readers that wait for exactly those (`direct_writer`), so a token wakes no
greenlet. Everything else goes through the reader's cursor and the stream's own greenlet.
"""

import itertools
import math
import random
import time
from collections.abc import Sequence
from contextlib import closing

import gevent
import msgspec
from gevent.event import Event

from everstream.log.entries import Entry
from everstream.log.records import Generation
from everstream.log.web_log import WebLog
from everstream.settings import Settings
from everstream.web import duties
from everstream.web.access.principal import Principal
from everstream.web.engine_watch import EngineWatch
from everstream.web.live_batch import LiveBatch
from everstream.web.log_reads import LogReads
from everstream.web.open_streams import Heartbeat, OpenStreams, StreamClient
from everstream.web.process_status import ProcessStatus
from everstream.web.queue_positions import QueuePositions
from everstream.web.read_reports import ReadReports
from everstream.web.reader import Reader, Readers
from everstream.web.request_ids import note_generation
from everstream.web.sse import Encoder, EngineState, Queued

RETRY_S = 0.5
MAX_SILENT = 1000
"""Bounds what requests leave behind that were refused, or that attached to another generation."""
LINGER_S = 1.0
"""So long a subscription lasts without readers, at least."""


class Follower:
    def __init__(self, web_log: WebLog, settings: Settings, streams: OpenStreams) -> None:
        self._log = web_log
        self._settings = settings
        self.streams = streams
        self._readers: Readers = {}
        self._silent: set[str] = set()
        """Generations that this process has started, and of which it has heard nothing since before that."""
        self._is_subscribed = False
        self._is_wanted = Event()
        """Whether the subscription is: set when a reader comes, cleared when it ends for lack of readers."""
        self._left_at = -math.inf
        """When the last reader left."""
        self._reads = LogReads(web_log)
        self._positions = QueuePositions(web_log)
        self._engines = EngineWatch(web_log, self._readers, settings.lease_s)
        self._reports = ReadReports(
            web_log, self._readers, streams, min(settings.abandon_after_s, settings.post_abandon_after_s)
        )

    def start(self) -> None:
        """Start the greenlets that serve all readers. Call it once, in the process that serves them."""
        for part in (self._reads, self._positions, self._engines, self._reports):
            part.start()
        gevent.spawn(self._listen)

    @property
    def status(self) -> ProcessStatus:
        """How this process is."""
        return self._reports.status

    def lookup(self, generation: str, viewer: Principal) -> Generation | None:
        """What is known of a generation; None: nothing, or the viewer may not see it. Raises ValkeyError."""
        note_generation(generation)
        known = self._reads.lookup(generation)
        return known if known and viewer.may_see(known) else None

    def expect(self, generation: str) -> None:
        """Note from now on whether entries of it come, because it is about to be started. If none do before its first
        reader, that one has missed nothing, and need not read the log."""
        if len(self._silent) > MAX_SILENT:
            self._silent.clear()
        if self._is_subscribed:
            self._silent.add(generation)

    def mark_read(self, generation: str) -> None:
        """Someone looked at it without following."""
        self._reports.mark_read(generation)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of `log.counters.COUNTERS`."""
        self._reports.count(name, by)

    def reader(self, encoder: Encoder, after: int, queue: str, client: StreamClient) -> Reader:
        return Reader(encoder, after, self._settings.reader_queue_bytes, queue, client)

    def register(self, reader: Reader) -> None:
        """Give the reader its generation's live entries until `unregister`."""
        self._readers.setdefault(reader.generation, set()).add(reader)
        self._is_wanted.set()
        if reader.generation in self._silent:
            self._silent.remove(reader.generation)
            reader.cursor.mark_current()
        self.streams.begin(reader)
        if reader.cursor.last <= 0:
            self._positions.add(reader)

    def unregister(self, reader: Reader) -> None:
        self.streams.end(reader)
        self.count("gaps_healed", reader.cursor.gaps)
        self.mark_read(reader.generation)
        self._positions.discard(reader)
        readers = self._readers[reader.generation]
        readers.discard(reader)
        if not readers:
            del self._readers[reader.generation]
            self._left_at = time.monotonic()

    def next(self, reader: Reader) -> list[Entry] | Queued | EngineState | Heartbeat | None:
        """Wait up to heartbeat_s for the next thing to send. None: the reader left, or had to because the worker stops.

        Don't call it after a terminal entry. Raises EverstreamError if the log can't supply the rest.
        """
        item: list[Entry] | Queued | EngineState | Heartbeat | None = self.streams.next(reader, self._next)
        if isinstance(item, Heartbeat):
            # A lost final message leaves no gap, so re-read after silence.
            reader.cursor.mark_behind()
        return item

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

    def _listen(self) -> None:
        """Dispatch live entries to their readers for as long as the process lives."""
        while True:
            try:
                self._follow_messages()
            except Exception as error:
                # All streams of this process depend on this greenlet, so it must survive any error.
                duties.report(error, "the subscription failed, trying again")
                # Jitter, so that not all processes reconnect at once after a restart of Valkey.
                gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311
            else:
                self._is_wanted.wait()

    def _follow_messages(self) -> None:
        """Dispatch them until one comes after LINGER_S without readers."""
        with closing(self._log.subscribe()) as messages:
            try:
                for batches in messages:
                    if not batches:
                        self._is_subscribed = True
                        self._mark_all_behind()
                    self.dispatch(batches)
                    if batches and not self._readers and time.monotonic() - self._left_at > LINGER_S:
                        self._is_wanted.clear()
                        return
            finally:
                self._is_subscribed = False
                self._silent.clear()

    def dispatch(self, batches: Sequence[tuple[str, int, msgspec.Raw]]) -> None:
        """Write to the sockets of readers that wait for exactly this. Offer it to the cursors of the others."""
        now = time.monotonic()
        for generation, first, entries in batches:
            if readers := self._readers.get(generation):
                batch = LiveBatch(first, entries)
                for reader in readers:
                    if not reader.deliver(batch, now):
                        reader.offer(batch.entries)
            else:
                self._silent.discard(generation)

    def _mark_all_behind(self) -> None:
        """Entries published before the subscription was in place were missed."""
        for reader in itertools.chain.from_iterable(self._readers.values()):
            reader.fall_behind()
