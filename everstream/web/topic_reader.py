"""One open stream of topics. Made by `topic_streaming`, served by `topic_follower`."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from everstream.errors import EverstreamError
from everstream.log.presence import Present
from everstream.log.topic_log import Message, Start, Subscription, TopicPage
from everstream.web.open_streams import OpenStream, StreamClient
from everstream.web.topic_cursor import TopicCursor


class PresenceNews(NamedTuple):
    topic: str
    present: Present


class TopicEncoder(Protocol):
    """Messages in one format. Encoders with an equal `format` encode live messages identically."""

    format: str
    ends_at_reset: bool
    """Whether the stream ends when what follows may not be contiguous with what the client has seen."""

    @property
    def heartbeat(self) -> bytes:
        """What shows that the stream lives, if nothing else does."""

    def start(self, retry_ms: int) -> bytes:
        """The first bytes."""

    def page(self, page: TopicPage, *, is_first: bool) -> Iterator[bytes]:
        """Events for what was read. `is_first`: the client has seen nothing yet."""

    def live(self, messages: Sequence[Message]) -> bytes:
        """Events for messages that follow those before, for a client that has all of those."""

    def presence(self, topic: str, present: Present) -> bytes:
        """Who follows a topic now. Has no id."""

    def reconnect(self, retry_ms: int) -> bytes:
        """The last bytes of a stream that the client should resume elsewhere after `retry_ms`."""

    def lost(self, error: EverstreamError) -> bytes:
        """The last event of a stream that can't go on."""


class TopicReader(OpenStream):
    """Who follows topics, and how far. `opened_at`: Unix seconds."""

    __slots__ = ("_present", "_unsent_present", "cursor", "encoder", "opened_at", "presence", "subscription")

    def __init__(
        self, subscription: Subscription, start: Start, encoder: TopicEncoder, bound_bytes: int, client: StreamClient
    ) -> None:
        super().__init__(client)
        self.subscription = subscription
        self.encoder = encoder
        self.cursor = TopicCursor(start, bound_bytes)
        self.presence = client.presence
        self.opened_at = int(time.time())
        self._present: dict[str, Present] | None = None
        self._unsent_present: dict[str, Present] | None = None

    def deliver(self, chunk: bytes, first: int, last: int, now: float) -> bool:
        """Write live messages, from the position `first` to `last`, to the socket. False: they have to go another way.
        `now`: by the monotonic clock. One call per stream and batch: it decides what a message costs."""
        if not chunk or self._waiter is None or self.writer is None or not self.cursor.skip(first, last):
            return False
        self.last_sent_at = now
        self.first_sent_at = self.first_sent_at or now
        self.direct_bytes += len(chunk)
        try:
            if self.writer.send(chunk):
                return True
        except OSError:
            self.left = True
        self.wake()
        return True

    def tell_present(self, topic: str, present: Present) -> None:
        """Set who follows one of its topics."""
        if (self._present or {}).get(topic) != present:
            self._present = {**(self._present or {}), topic: present}
            self._unsent_present = {**(self._unsent_present or {}), topic: present}
            self.wake()

    def take_present(self) -> PresenceNews | None:
        """What the client does not know yet about who follows its topics."""
        if not self._unsent_present:
            return None
        topic, present = self._unsent_present.popitem()
        return PresenceNews(topic, present)

    def fall_behind(self) -> None:
        """Have the log read, because live messages may have been missed."""
        self.cursor.mark_behind()
        self.wake()
