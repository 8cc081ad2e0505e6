"""The open streams of a web process, whatever they follow: how many there may be, their heartbeats, and their ends when
the process stops or a key is revoked.

A follower makes streams (`reader`, `topic_reader`), and says here when one begins and ends.
"""

import random
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import gevent
from gevent.hub import Waiter

from everstream.errors import EverstreamError, TooManyStreams, Unauthorized
from everstream.settings import Settings
from everstream.web import duties
from everstream.web.direct_writer import DirectWriter
from everstream.web.stream_wheel import StreamWheel

MAX_TICK_S = 0.25
"""The longest interval between looks for streams that are due a heartbeat."""
CHECK_KEYS_S = 2.0
"""Between checks for streams whose API key was revoked."""
RETURNS_PER_S = 500
"""About the rate at which a draining worker's readers reconnect elsewhere."""


class Heartbeat(NamedTuple):
    """Nothing was sent for heartbeat_s."""


class StreamClient(NamedTuple):
    """A stream's client. `credential`: of the principal that opened it, see `access.principal`. `writer` takes live
    entries while the stream's greenlet waits. `can_return`: it comes back by itself for the rest of a stream that ended
    without a terminal event. `presence`: the name that other followers of its topics see; empty: none."""

    credential: str = ""
    writer: DirectWriter | None = None
    can_return: bool = False
    presence: str = ""


class OpenStream:
    """The state of one open stream.

    A process has thousands, so each has only the essentials: no timer, no event.
    """

    __slots__ = (
        "_is_awake",
        "_waiter",
        "can_return",
        "credential",
        "direct_bytes",
        "due",
        "error",
        "first_sent_at",
        "is_drained",
        "last_sent_at",
        "left",
        "writer",
    )

    def __init__(self, client: StreamClient) -> None:
        self.credential = client.credential
        self.can_return = client.can_return
        self.writer = client.writer
        self.last_sent_at = time.monotonic()
        """When this stream last sent something to the client, by the monotonic clock."""
        self.first_sent_at = 0.0
        """When the first entry was."""
        self.direct_bytes = 0
        """What went to the client through `writer`, but for heartbeats."""
        self.due = 0
        """See `stream_wheel`."""
        self.left = self.is_drained = False
        self.error: EverstreamError | None = None
        self._waiter: Waiter | None = None
        self._is_awake = True

    @property
    def is_waiting(self) -> bool:
        """Whether the stream's own greenlet waits for `wake`. Only then may others use `writer`."""
        return self._waiter is not None

    def leave(self) -> None:
        """End the stream, because the client left."""
        self.left = True
        self.wake()

    def drain(self) -> None:
        """End the stream, because the worker stops. Its client is told so."""
        self.is_drained = True
        self.leave()

    def fail(self, error: EverstreamError) -> None:
        """End the stream with an error, after the entries that it holds."""
        self.error = error
        self.wake()

    @property
    def sent_at(self) -> float:
        """When something was last sent to the client, by whomever."""
        return self.last_sent_at

    def mark_sent(self) -> None:
        """The client was just sent something."""
        self.last_sent_at = time.monotonic()

    def mark_first(self) -> None:
        """The client is about to be sent entries."""
        if not self.first_sent_at:
            self.first_sent_at = time.monotonic()

    def write_directly(self, chunk: bytes, now: float) -> None:
        """Write live entries to the socket while the stream's greenlet waits. `now`: by the monotonic clock."""
        self.direct_bytes += len(chunk)
        if not self.first_sent_at:
            self.first_sent_at = now
        self._write(chunk, now)

    def beat(self) -> None:
        """Have a heartbeat sent, while the stream's greenlet waits."""
        self.wake()

    def _write(self, chunk: bytes, now: float) -> None:
        """Wakes the stream's greenlet for unsent bytes or an error."""
        assert self.writer is not None
        self.last_sent_at = now
        try:
            if self.writer.send(chunk):
                return
        except OSError:
            self.left = True
        self.wake()

    def wake(self) -> None:
        """Have the stream's own greenlet check for work."""
        self._is_awake = True
        if self._waiter is not None:
            gevent.get_hub().loop.run_callback(self._waiter.switch, None)
            self._waiter = None

    def wait(self) -> None:
        """Wait for `wake`, in the stream's own greenlet. Meanwhile live entries may go straight to the socket."""
        if not self._is_awake:
            self._waiter = Waiter()
            try:
                self._waiter.get()
            finally:
                self._waiter = None
        self._is_awake = False
        if self.writer is not None and self.writer.has_unsent:
            self.writer.send_rest()


Stream = TypeVar("Stream", bound=OpenStream)
Item = TypeVar("Item")


class OpenStreams:
    """One per web process."""

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self._drained = False
        self._settings = settings
        self._slots = 0
        self._on_drain: list[Callable[[], None]] = []
        self._tick_s = min(MAX_TICK_S, settings.heartbeat_s / 8)
        # A look comes up to a tick late, and the tick up to another.
        self._silence_s = settings.heartbeat_s - 2 * self._tick_s
        self._open = StreamWheel(self._silence_s, self._tick_s)

    def start(self, is_valid: Callable[[str], bool]) -> None:
        """Start what has to be done for all of them. `is_valid`: whether a reader's credential is still good."""
        end_revoked = partial(self._end_revoked, is_valid)
        gevent.spawn(duties.repeat, end_revoked, CHECK_KEYS_S, "can't look for revoked keys")
        gevent.spawn(duties.repeat, self._open.send_due, self._tick_s, "can't send heartbeats")

    def __len__(self) -> int:
        return len(self._open)

    def admit(self) -> Callable[[], None]:
        """Take one of the worker's stream slots, and return a function that releases it. Raises TooManyStreams."""
        if self._slots >= self._settings.max_streams:
            raise TooManyStreams(f"this process is at its limit of {self._slots} streams; try again later")
        self._slots += 1
        return self._release_slot

    def _release_slot(self) -> None:
        self._slots -= 1

    def begin(self, stream: OpenStream) -> None:
        """Called when a stream is opened."""
        self._open.add(stream)
        # If the process stops already, it has to end like the others.
        if self._drained or (self.draining and stream.can_return):
            stream.drain()

    def end(self, stream: OpenStream) -> None:
        """Called when it has ended."""
        self._open.discard(stream)

    def next(self, stream: Stream, take: Callable[[Stream], Item | None]) -> Item | Heartbeat | None:
        """Wait up to heartbeat_s for the next thing to send, which is what `take` returns when the stream is woken.
        None: the client left, or has to because the worker stops."""
        # Not a generator: each generator on a waiting greenlet's stack takes half a kilobyte.
        stream.mark_sent()
        while not stream.left:
            if item := take(stream):
                return item
            if time.monotonic() >= stream.sent_at + self._silence_s:
                return Heartbeat()
            stream.wait()
        return None

    def drain(self) -> None:
        """End the streams of clients that can reconnect to another process, without a terminal event. The others get up
        to drain_s to reach their end."""
        if self.draining:
            # gunicorn sends SIGTERM every second to a worker that it has replaced.
            return
        self.draining = True
        for stream in list(self._open):
            if stream.can_return:
                stream.drain()
        for leave in self._on_drain:
            leave()
        gevent.spawn_later(self._settings.drain_s, self._end_the_rest)

    def _end_the_rest(self) -> None:
        self._drained = True
        for stream in list(self._open):
            stream.drain()

    def on_drain(self, leave: Callable[[], None]) -> None:
        """Call this, too, to end streams that are none of these."""
        self._on_drain.append(leave)

    def return_after_ms(self) -> int:
        """When a client of a draining worker should reconnect. Random, so that not all come at once."""
        spread_ms = max(self._settings.retry_ms, 1000 * self._slots // RETURNS_PER_S)
        return self._settings.retry_ms + random.randrange(spread_ms)  # noqa: S311

    def _end_revoked(self, is_valid: Callable[[str], bool]) -> None:
        """End the streams of keys that were revoked or have expired."""
        shown = {stream.credential for stream in self._open if stream.credential}
        if revoked := {credential for credential in shown if not is_valid(credential)}:
            for stream in [each for each in self._open if each.credential in revoked]:
                stream.fail(Unauthorized("the API key was revoked, or has expired"))
