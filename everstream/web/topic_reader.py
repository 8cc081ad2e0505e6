"""One open stream of topics. Made by `topic_streaming`, served by `topic_follower`."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from everstream.errors import EverstreamError
from everstream.log.presence import Present
from everstream.log.topic_records import Message, Start, Subscription, TopicPage
from everstream.web.direct_writer import http_chunk
from everstream.web.open_streams import OpenStream, StreamClient
from everstream.web.topic_cursor import TopicCursor

if TYPE_CHECKING:
    from everstream.web.topic_group import Group, Lane


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
    """One client's stream and its position in the topics. `opened_at`: Unix seconds."""

    __slots__ = (
        "_lane",
        "_lane_bytes",
        "_present",
        "_unsent_present",
        "cursor",
        "encoder",
        "group",
        "opened_at",
        "presence",
        "subscription",
    )

    def __init__(
        self, subscription: Subscription, start: Start, encoder: TopicEncoder, bound_bytes: int, client: StreamClient
    ) -> None:
        super().__init__(client)
        self.subscription = subscription
        self.encoder = encoder
        self.cursor = TopicCursor(start, bound_bytes)
        self.presence = client.presence
        self.opened_at = int(time.time())
        self.group: Group | None = None
        """Set when it is registered."""
        self._lane: Lane | None = None
        self._lane_bytes = 0
        self._present: dict[str, Present] | None = None
        self._unsent_present: dict[str, Present] | None = None

    def wait(self) -> None:
        # A stream that is awake does not wait.
        if not self._is_awake:
            self._join_lane()
        try:
            super().wait()
        finally:
            self.leave_lane()

    def wake(self) -> None:
        self.leave_lane()
        super().wake()

    @property
    def sent_at(self) -> float:
        lane = self._lane
        has_sent = lane is not None and lane.sent_bytes > self._lane_bytes
        return max(lane.sent_at, self.last_sent_at) if lane and has_sent else self.last_sent_at

    def beat(self) -> None:
        # Without waking the greenlet: most followers of topics get nothing else for long.
        if self.writer is None:
            self.wake()
        else:
            self._write(http_chunk(self.encoder.heartbeat), time.monotonic())

    def deliver(self, chunk: bytes, first: int, last: int, now: float) -> bool:
        """Write live messages, from the position `first` to `last`, to the socket. False: they must go another way."""
        if self._waiter is None or self.writer is None or not self.cursor.skip(first, last):
            return False
        self.write_directly(chunk, now)
        self._join_lane()
        return True

    def _join_lane(self) -> None:
        writer = self.writer
        if writer is None or writer.has_unsent or self.left or not self.cursor.is_idle or self.group is None:
            return
        if (lane := self.group.lane_for(self)) is not None:
            self._lane, self._lane_bytes = lane, lane.sent_bytes
            lane.join(self, writer.fileno)

    def leave_lane(self, unsent: bytes | None = b"") -> None:
        """Account for what the lane has written. `unsent`: what the kernel did not take; None: the client left."""
        if (lane := self._lane) is None:
            return
        self.last_sent_at = self.sent_at
        self._lane = None
        lane.leave(self)
        if lane.sent_bytes > self._lane_bytes:
            self.cursor.position = lane.position
            self.first_sent_at = self.first_sent_at or lane.sent_at
            self.direct_bytes += lane.sent_bytes - self._lane_bytes
        if unsent is None:
            self.leave()
        elif unsent and self.writer:
            self.writer.keep(unsent)
            self.wake()

    def tell_present(self, topic: str, present: Present) -> None:
        """Set who follows one of its topics."""
        if (self._present or {}).get(topic) != present:
            self._present = {**(self._present or {}), topic: present}
            self._unsent_present = {**(self._unsent_present or {}), topic: present}
            self.wake()

    def take_present(self) -> PresenceNews | None:
        """The next change that the client has not been told."""
        if not self._unsent_present:
            return None
        topic, present = self._unsent_present.popitem()
        return PresenceNews(topic, present)

    def fall_behind(self) -> None:
        """Have the log read, because live messages may have been missed."""
        self.cursor.mark_behind()
        self.wake()
