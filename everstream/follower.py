"""The one read path: start, resume, a second viewer and a reload are all a `Reader` of a generation, after an entry.

One follower per web process: one subscription, one decode, many readers. A reader registers first, then has the log
read after its place, then goes live; a gap in the numbers sends it back to the log. Pub/sub may lose messages: a lost
last one shows no gap, so a reader looks into the log at each heartbeat too.

What is heard goes straight to the sockets of readers that wait for just that (`outlet`): a token wakes no greenlet.
Everything else goes through the reader's cursor and the stream's own greenlet.

A stream's own greenlet never waits for Valkey: a few greenlets read for all, many readers at a time, so that a Valkey
that is slow or away delays no heartbeat, and readers that all come back at once do not all ask at once.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import gevent
from gevent.event import AsyncResult, Event
from gevent.hub import Waiter
from gevent.queue import Queue
from valkey.exceptions import ValkeyError

from everstream import log, seldom
from everstream.cursor import Cursor
from everstream.errors import (
    EntriesLost,
    EverstreamError,
    LogBroken,
    ModelUnavailable,
    TooManyStreams,
    UnknownGeneration,
)
from everstream.outlet import Outlet, chunk
from everstream.retryable import UNAVAILABLE
from everstream.settings import Settings
from everstream.sse import Encoder
from everstream.web_log import READ_BYTES, WebLog

logger = logging.getLogger(__name__)
T = TypeVar("T")

READING_GREENLETS = 4
READS_AT_ONCE = 64
MAX_CHUNK_BYTES = 16 << 10
"""What is more at a time goes through the stream's greenlet, which sends it in pieces."""
CLAIMED_WITHIN_S = 0.1
POSITIONS_EVERY_S = 0.5
MAX_BEAT_S = 0.25
"""How often it is looked for streams that were silent for so long that a heartbeat is due."""
TOUCH_EVERY_S = 1.0
"""How often it is said who is being read; more often where abandon_after_s is short."""
RETRY_S = 0.5
LOOK_AT_ENGINES_EVERY_S = 1.0
RETURNS_PER_S = 500
"""The readers of a worker that drains are told to come back at about this rate."""


class Queued(NamedTuple):
    """A place in the queue, from 1; 0 once an engine has claimed the generation."""

    position: int


class Heartbeat(NamedTuple):
    """Nothing was said for heartbeat_s."""


class Reader:
    """One open stream. `error` ends it; `outlet` takes what is heard while the stream's greenlet has a `waiter`.

    A process has thousands, so each has only what it needs: no timer, no event.
    """

    __slots__ = (
        "_is_awake",
        "cursor",
        "encoder",
        "error",
        "generation",
        "left",
        "outlet",
        "position",
        "spoke_at",
        "told",
        "waiter",
    )

    def __init__(self, encoder: Encoder, after: int, bound_bytes: int, outlet: Outlet | None) -> None:
        self.generation = encoder.generation
        self.encoder = encoder
        self.cursor = Cursor(after, bound_bytes)
        self.outlet = outlet
        self.waiter: Waiter | None = None
        self.spoke_at = time.monotonic()
        self.left = False
        self.error: EverstreamError | None = None
        self.position: int | None = None
        self.told: int | None = None
        self._is_awake = True

    def leave(self) -> None:
        """End the stream: the client has gone, or the worker is told to stop."""
        self.left = True
        self.wake()

    def wake(self) -> None:
        """Have the stream's own greenlet look at what there is to do."""
        self._is_awake = True
        if self.waiter is not None:
            gevent.get_hub().loop.run_callback(self.waiter.switch, None)
            self.waiter = None

    def wait(self) -> None:
        """In the stream's own greenlet: wait for `wake`; what is heard meanwhile may go straight to the socket."""
        if not self._is_awake:
            self.waiter = Waiter()
            try:
                self.waiter.get()
            finally:
                self.waiter = None
        self._is_awake = False


class Live:
    """What one message of the channel says of one generation; each format of it is made once, however many read it."""

    __slots__ = ("_chunks", "_entries", "_tokens", "first", "last")

    def __init__(self, first: int, entries: list[bytes]) -> None:
        self.first, self.last = first, first + len(entries) - 1
        self._entries = entries
        self._chunks: dict[str, bytes] = {}
        self._tokens = [log.token_data(entry) for entry in entries]

    @property
    def entries(self) -> list[log.Entry]:
        return [log.decode_entry(n, entry) for n, entry in enumerate(self._entries, self.first)]

    def chunk(self, encoder: Encoder) -> bytes:
        """For the sockets of all readers with such an encoder. Empty: this has to go through the streams' greenlets."""
        made = self._chunks.get(encoder.format)
        if made is None:
            made = self._chunks[encoder.format] = self._make_chunk(encoder)
        return made

    def _make_chunk(self, encoder: Encoder) -> bytes:
        events = []
        for n, data in enumerate(self._tokens, self.first):
            if data is None:
                # Mostly an end, after which there is more to do than to send it.
                return b""
            events.append(encoder.token(n, data))
        body = b"".join(events)
        return chunk(body) if len(body) <= MAX_CHUNK_BYTES else b""


class Follower:
    """`counted` is what happened here since it was last added to the log's counters."""

    def __init__(self, web_log: WebLog, settings: Settings) -> None:
        self.counted: Counter[str] = Counter()
        self.draining = False
        self._log = web_log
        self._settings = settings
        self._beat_s = min(MAX_BEAT_S, settings.heartbeat_s / 4)
        self._places = 0
        self._readers: dict[str, set[Reader]] = {}
        self._to_read: Queue[Reader] = Queue()
        self._to_look_up: Queue[tuple[str, AsyncResult]] = Queue()
        self._queued: set[Reader] = set()
        self._someone_queues = Event()
        self._seen: set[str] = set()
        self._broken_since = math.inf

    def start(self) -> None:
        """Start the greenlets that serve all readers; once, in the process that serves them."""
        for _ in range(READING_GREENLETS):
            gevent.spawn(self._read_for_ever)
            gevent.spawn(self._look_up_for_ever)
        for duty in (self._listen, self._watch_queue, self._watch_engines, self._touch, self._wake_silent):
            gevent.spawn(duty)

    @property
    def reader_count(self) -> int:
        return sum(len(readers) for readers in self._readers.values())

    def admit(self) -> Callable[[], None]:
        """Take one of the worker's places for streams; what is returned gives it back. Raises TooManyStreams."""
        if self._places >= self._settings.max_streams:
            self.counted["streams_refused"] += 1
            raise TooManyStreams(f"this process has {self._places} streams, which is its limit; try again later")
        self._places += 1
        return self._give_back

    def _give_back(self) -> None:
        self._places -= 1

    def drain(self) -> None:
        """End all streams, without a terminal event: the clients come back, elsewhere."""
        self.draining = True
        for readers in self._readers.values():
            for reader in readers:
                reader.leave()

    def return_after_ms(self) -> int:
        """When a client of a worker that drains is to come back: not all at once."""
        spread_ms = max(self._settings.retry_ms, 1000 * self._places // RETURNS_PER_S)
        return self._settings.retry_ms + random.randrange(spread_ms)  # noqa: S311

    def lookup(self, generation: str) -> log.Generation | None:
        """What is known of a generation, or None. Those who ask at the same time are answered together."""
        answer = AsyncResult()
        self._to_look_up.put((generation, answer))
        found: log.Generation | None = answer.get()
        return found

    def _look_up_for_ever(self) -> None:
        while True:
            asked: list[tuple[str, AsyncResult]] = _waiting(self._to_look_up)
            try:
                found = self._log.lookup([generation for generation, _ in asked])
            except Exception as error:
                for _, answer in asked:
                    answer.set_exception(error)
            else:
                for (_, answer), known in zip(asked, found, strict=True):
                    answer.set(known)

    def saw(self, generation: str) -> None:
        """Somebody looked at it, without following."""
        self._seen.add(generation)

    def reader(self, encoder: Encoder, after: int, outlet: Outlet | None) -> Reader:
        return Reader(encoder, after, self._settings.reader_queue_bytes, outlet)

    def register(self, reader: Reader) -> None:
        """From here on it hears what is said of its generation. To be ended by `unregister`."""
        self._readers.setdefault(reader.generation, set()).add(reader)
        if reader.cursor.last <= 0:
            self._queued.add(reader)
            self._someone_queues.set()

    def unregister(self, reader: Reader) -> None:
        self.counted["gaps_healed"] += reader.cursor.gaps
        self._seen.add(reader.generation)
        self._queued.discard(reader)
        readers = self._readers[reader.generation]
        readers.discard(reader)
        if not readers:
            del self._readers[reader.generation]

    def next(self, reader: Reader) -> list[log.Entry] | Queued | Heartbeat | None:
        """Wait for what follows, up to heartbeat_s; None: the reader left, or the worker drains.

        Not to be called after a terminal entry. Raises EverstreamError where the log can't give the end.
        """
        # Not a generator: each one on the stack of a greenlet that waits is half a kilobyte of it.
        reader.spoke_at = time.monotonic()
        while not reader.left and not self.draining:
            if said := self._next(reader):
                return said
            if self._is_silent(reader):
                # A lost final message leaves no gap, so re-read after silence.
                reader.cursor.behind = True
                return Heartbeat()
            reader.wait()
            if reader.outlet is not None and reader.outlet.has_unsent:
                reader.outlet.send_rest()
        return None

    def _is_silent(self, reader: Reader) -> bool:
        return time.monotonic() > reader.spoke_at + self._settings.heartbeat_s - self._beat_s

    def _wake_silent(self) -> None:
        """In place of a timer for each stream, which would be half a kilobyte of it."""
        while True:
            for readers in self._readers.values():
                for reader in readers:
                    if reader.waiter and self._is_silent(reader):
                        reader.wake()
            gevent.sleep(self._beat_s)

    def _next(self, reader: Reader) -> list[log.Entry] | Queued | None:
        """What can be said now; None: nothing yet. Has the log read where the reader is behind."""
        cursor = reader.cursor
        if not cursor.reading:
            entries = cursor.take()
            if cursor.behind:
                cursor.reading = True
                self._to_read.put(reader)
            if entries:
                return entries
        if reader.error:
            raise reader.error
        if reader.position != reader.told:
            reader.told = reader.position
            return Queued(reader.position or 0)
        return None

    def _read_for_ever(self) -> None:
        while True:
            readers: list[Reader] = _waiting(self._to_read)
            try:
                self._read(readers)
            except UNAVAILABLE:
                gevent.sleep(RETRY_S)
                for reader in readers:
                    reader.cursor.end_read([], to_the_end=False)
            except Exception:
                # One of them may be at fault for all.
                for reader in readers:
                    self._read_or_end(reader)
            for reader in readers:
                reader.wake()

    def _read_or_end(self, reader: Reader) -> None:
        try:
            self._read([reader])
        except UNAVAILABLE:
            reader.cursor.end_read([], to_the_end=False)
        except Exception as error:
            _report(error, "a generation can't be read")
            why = str(error) if isinstance(error, ValkeyError) else "the server's log says why"
            reader.error = LogBroken(f"the log (Valkey) can't be read: {why}")

    def _read(self, readers: list[Reader]) -> None:
        places = [(reader.generation, reader.cursor.begin_read()) for reader in readers]
        for reader, page in zip(readers, self._log.read(places, READ_BYTES), strict=True):
            if page is None:
                reader.error = UnknownGeneration()
            elif page.top < reader.cursor.last:
                reader.error = EntriesLost(
                    f"the log has {page.top} entries of this generation, of which {reader.cursor.last} were sent"
                )
            entries = page.entries if page else []
            last = entries[-1].n if entries else reader.cursor.last
            reader.cursor.end_read(entries, to_the_end=page is None or last >= page.top)

    def _listen(self) -> None:
        """Hand what is appended to the readers, for as long as the process lives."""
        while True:
            try:
                for heard in self._log.subscribe():
                    if not heard:
                        self._all_behind()
                    for generation, first, entries in heard:
                        if readers := self._readers.get(generation):
                            self._dispatch(readers, Live(first, log.split_entries(entries)))
                    # A read that finds data waiting does not yield: while much is said, nobody else would run.
                    gevent.sleep(0)
            except Exception as error:
                # All streams of this process live off this greenlet; whatever it met, it has to go on.
                _report(error, "the subscription was cut, trying again")
            # Not all processes at once, after a restart of Valkey.
            gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311

    def _dispatch(self, readers: set[Reader], live: Live) -> None:
        for reader in readers:
            outlet = reader.outlet if reader.waiter else None
            if outlet and (made := live.chunk(reader.encoder)) and reader.cursor.skip(live.first, live.last):
                self._send(reader, outlet, made)
            else:
                for entry in live.entries:
                    reader.cursor.offer(entry)
                reader.wake()

    def _send(self, reader: Reader, outlet: Outlet, made: bytes) -> None:
        reader.spoke_at = time.monotonic()
        try:
            if outlet.send(made):
                return
        except OSError:
            reader.left = True
        reader.wake()

    def _all_behind(self) -> None:
        """What was said before the subscription stood was not heard."""
        for readers in self._readers.values():
            for reader in readers:
                reader.cursor.behind = True
                reader.wake()

    def _watch_queue(self) -> None:
        """Tell queued readers their place, and of a model that will never come."""
        while True:
            self._someone_queues.wait()
            # Mostly an engine that is free has it before this is over, and nobody need ask.
            gevent.sleep(CLAIMED_WITHIN_S)
            _try(self._tell_positions, "the queue can't be read")
            if self._queued:
                gevent.sleep(POSITIONS_EVERY_S)
            else:
                self._someone_queues.clear()

    def _tell_positions(self) -> None:
        self._queued -= {reader for reader in self._queued if reader.cursor.last > 0}
        if not self._queued:
            return
        # Taken before the queue is read: a reader that comes meanwhile is not in it yet, and not claimed either.
        readers = list(self._queued)
        positions = self._log.positions()
        failure = engine_failure(self._log.engines())
        for reader in readers:
            position = positions.get(reader.generation)
            if position is None:
                # Claimed: say so to those who were told a place, and ask no more.
                self._queued.discard(reader)
                position = 0 if reader.told is not None else None
            elif failure:
                self._log.fail(reader.generation, failure, only_queued=True)
            if position != reader.position:
                reader.position = position
                reader.wake()

    def _watch_engines(self) -> None:
        """Where no engine can work with the log, say so to all who wait for what will not come."""
        while True:
            gevent.sleep(LOOK_AT_ENGINES_EVERY_S)
            _try(self._end_all_if_broken, "the engines can't be asked for")

    def _end_all_if_broken(self) -> None:
        failure = self._failure() if self._readers else None
        if not isinstance(failure, LogBroken):
            self._broken_since = math.inf
            return
        # After an outage a healthy engine may not have been heard of again yet.
        self._broken_since = min(self._broken_since, time.monotonic())
        if time.monotonic() - self._broken_since < self._settings.lease_s:
            return
        for generation in list(self._readers):
            error: EverstreamError | None = None
            try:
                self._log.fail(generation, failure, only_queued=False)
            except UNAVAILABLE:
                raise
            except ValkeyError:
                # Not even its end gets into the log. What readers have stays a prefix of it.
                error = failure
            for reader in self._readers.get(generation, ()):
                # An end that is in the log may not have been published.
                reader.cursor.behind = True
                reader.error = error
                reader.wake()

    def _failure(self) -> EverstreamError | None:
        try:
            return engine_failure(self._log.engines())
        except UNAVAILABLE:
            raise
        except ValkeyError as error:
            return LogBroken(f"the log (Valkey) can't be read: {error}")

    def _touch(self) -> None:
        """Say who is being read, so that an engine knows what is abandoned; and add to the counters."""
        while True:
            gevent.sleep(min(TOUCH_EVERY_S, self._settings.abandon_after_s / 4))
            _try(self._tell_seen, "the log does not hear who is read")

    def _tell_seen(self) -> None:
        seen, counted = self._seen | self._readers.keys(), +self.counted
        if seen or counted:
            self._seen, self.counted = set(), Counter()
            try:
                self._log.touch(seen, counted)
            except UNAVAILABLE:
                self._seen |= seen
                self.counted += counted
                raise


def _waiting(queue: Queue[T]) -> list[T]:
    """Wait for one, and take what else there is, up to READS_AT_ONCE."""
    items = [queue.get()]
    while len(items) < READS_AT_ONCE and not queue.empty():
        items.append(queue.get())
    return items


def _try(duty: Callable[[], None], what: str) -> None:
    """A duty that is done again and again, whatever it met."""
    try:
        duty()
    except Exception as error:
        _report(error, f"{what}, trying again")


def _report(error: Exception, what: str) -> None:
    """What Valkey says is one line; anything else is a bug of ours, whose place we want to know."""
    if isinstance(error, ValkeyError):
        seldom.warning(logger, f"{what}: %s", error)
    else:
        logger.exception(what, exc_info=error)


def engine_failure(engines: list[log.EngineStatus]) -> EverstreamError | None:
    """Why no engine can serve, if that is sure: all that were heard of have failed, with the model or with the log."""
    if not engines or any(engine.state != "failed" for engine in engines):
        return None
    if broken := next((engine for engine in engines if engine.code == LogBroken.code), None):
        return LogBroken(broken.error)
    return ModelUnavailable(engines[0].error)
