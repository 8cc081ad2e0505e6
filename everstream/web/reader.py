"""One open stream of a generation, as the read path sees it. Made by `streaming`, served by `follower`."""

from everstream.log.entries import Entry
from everstream.web.cursor import Cursor
from everstream.web.live_batch import LiveBatch
from everstream.web.open_streams import OpenStream, StreamClient
from everstream.web.sse import Encoder, EngineState, Queued


class Reader(OpenStream):
    """Who follows a generation, and how far."""

    __slots__ = ("cursor", "encoder", "engine", "generation", "place", "queue", "sent_engine", "sent_place")

    def __init__(self, encoder: Encoder, after: int, bound_bytes: int, queue: str, client: StreamClient) -> None:
        super().__init__(client)
        self.generation = encoder.generation
        self.queue = queue
        self.encoder = encoder
        self.cursor = Cursor(after, bound_bytes)
        self.place: Queued | None = None
        self.sent_place: Queued | None = None
        self.engine: EngineState | None = None
        self.sent_engine: EngineState | None = None

    def deliver(self, batch: LiveBatch, now: float) -> bool:
        """Write a batch to the socket, if the client waits for exactly this one. False: it must go another way."""
        if self._waiter is None or self.writer is None or not (chunk := batch.chunk(self.encoder)):
            return False
        if not self.cursor.skip(batch.first, batch.last):
            return False
        self.write_directly(chunk, now)
        return True

    def offer(self, entries: list[Entry]) -> None:
        """Have the stream's greenlet send live entries when it can."""
        for entry in entries:
            self.cursor.offer(entry)
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


Readers = dict[str, set[Reader]]
"""All open streams of a process, by generation. Only `follower` changes it."""
