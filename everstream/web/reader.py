"""One open stream, as the read path sees it. Made by `streaming`, served by `follower`."""

import time
from typing import NamedTuple

import gevent
from gevent.hub import Waiter

from everstream.errors import EverstreamError
from everstream.web.cursor import Cursor
from everstream.web.direct_writer import DirectWriter
from everstream.web.sse import Encoder, EngineState, Queued


class Heartbeat(NamedTuple):
    """Nothing was sent for heartbeat_s."""


class StreamClient(NamedTuple):
    """Who reads a stream. `credential`: of the principal that opened it, see `access.principal`. `writer` takes live
    entries while the stream's greenlet waits. `can_return`: it comes back by itself for the rest of a stream that ended
    without a terminal event."""

    credential: str = ""
    writer: DirectWriter | None = None
    can_return: bool = False


class Reader:
    """The state of one open stream.

    A process has thousands of readers, so each has only the essentials: no timer, no event.
    """

    __slots__ = (
        "_is_awake",
        "_waiter",
        "can_return",
        "credential",
        "cursor",
        "direct_bytes",
        "encoder",
        "engine",
        "error",
        "first_sent_at",
        "generation",
        "is_drained",
        "last_sent_at",
        "left",
        "place",
        "queue",
        "sent_engine",
        "sent_place",
        "writer",
    )

    def __init__(self, encoder: Encoder, after: int, bound_bytes: int, queue: str, client: StreamClient) -> None:
        self.generation = encoder.generation
        self.queue = queue
        self.credential = client.credential
        self.can_return = client.can_return
        self.encoder = encoder
        self.cursor = Cursor(after, bound_bytes)
        self.writer = client.writer
        self.last_sent_at = time.monotonic()
        """When something was last sent to the client, by the monotonic clock."""
        self.first_sent_at = 0.0
        """When the first entry was."""
        self.direct_bytes = 0
        """What went to the client through `writer`."""
        self.left = self.is_drained = False
        self.error: EverstreamError | None = None
        self.place: Queued | None = None
        self.sent_place: Queued | None = None
        self.engine: EngineState | None = None
        self.sent_engine: EngineState | None = None
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
        """End the stream with an error, after the entries that its cursor holds."""
        self.error = error
        self.wake()

    def fall_behind(self) -> None:
        """Have the log read, because live entries may have been missed."""
        self.cursor.mark_behind()
        self.wake()

    def move_to(self, place: Queued | None) -> None:
        """Set the place in the queue. None: not queued, and no place was ever sent."""
        if place != self.place:
            self.place = place
            self.wake()

    def tell_engine(self, engine: EngineState) -> None:
        """Set what the model's engines do."""
        if engine != self.engine:
            self.engine = engine
            self.wake()

    def take_news(self) -> Queued | EngineState | None:
        """What the client does not know yet about its place in the queue, and about the engines."""
        if self.engine != self.sent_engine:
            self.sent_engine = self.engine
            return self.engine
        if self.place != self.sent_place:
            self.sent_place = self.place
            return self.place
        return None

    def mark_sent(self) -> None:
        """The client was just sent something."""
        self.last_sent_at = time.monotonic()

    def mark_first(self) -> None:
        """The client is about to be sent entries."""
        if not self.first_sent_at:
            self.first_sent_at = time.monotonic()

    def write_directly(self, chunk: bytes) -> None:
        """Write live entries to the socket while the stream's greenlet waits. Wake it for unsent bytes or an error."""
        assert self.writer is not None
        self.mark_sent()
        self.direct_bytes += len(chunk)
        if not self.first_sent_at:
            self.first_sent_at = self.last_sent_at
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


Readers = dict[str, set[Reader]]
"""All open streams of a process, by generation. Only `follower` changes it."""
