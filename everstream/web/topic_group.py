"""The streams of one subscription, and what is written to them. Made by `topic_follower`.

Streams that wait and have received everything so far are in a `Lane`, one for each format. There a message costs one
call per socket, and nothing else per stream. All other streams are `individual`: their cursors are offered what comes,
and their own greenlets write it.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from everstream.log.topic_names import is_pattern, regex
from everstream.log.topic_records import LiveMessages, Message, Subscription, live_message, name_of
from everstream.web.direct_writer import http_chunk
from everstream.web.topic_reader import TopicEncoder, TopicReader

MAX_CHUNK_BYTES = 16 << 10
"""A longer chunk goes through the streams' greenlets, which send it in pieces."""


class LastReceived:
    """The last message of the live channel. `number`: its number there; None: unknown. `position`: its last entry's."""

    __slots__ = ("number", "position")

    def __init__(self) -> None:
        self.number: int | None = None
        self.position = 0


class Group:
    """All streams of one subscription."""

    __slots__ = ("_patterns", "_received", "individual", "lanes", "names")

    def __init__(self, subscription: Subscription, received: LastReceived) -> None:
        self._received = received
        # Not sets, whose order is random: sockets that were opened one after the other share caches.
        self.individual: dict[TopicReader, None] = {}
        self.lanes: dict[str, Lane] = {}
        self.names = [each for each in subscription.patterns if not is_pattern(each)]
        self._patterns = [regex(each) for each in subscription.patterns if is_pattern(each)]

    @property
    def has_patterns(self) -> bool:
        return bool(self._patterns)

    def matches(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._patterns)

    def __iter__(self) -> Iterator[TopicReader]:
        return chain(self.individual, *(lane.writes for lane in self.lanes.values()))

    def lane_for(self, reader: TopicReader) -> "Lane | None":
        """The lane that an idle stream may join; None: not yet."""
        # The channel may still deliver messages that the stream has already read from the log.
        if reader.cursor.position > self._received.position:
            return None
        lane = self.lanes.get(reader.encoder.format)
        if lane is None:
            lane = self.lanes[reader.encoder.format] = Lane(self, reader.encoder)
        return lane


class Lane:
    """Streams of one format. `position` and `sent_at` are the last message's, once one was sent; `sent_at` is by the
    monotonic clock."""

    __slots__ = ("_group", "encoder", "position", "sent_at", "sent_bytes", "writes")

    def __init__(self, group: Group, encoder: TopicEncoder) -> None:
        self._group = group
        self.encoder = encoder
        self.position = 0
        self.sent_at = 0.0
        self.sent_bytes = 0
        self.writes: dict[TopicReader, Callable[[bytes], int]] = {}

    def join(self, reader: TopicReader, fileno: int) -> None:
        self._group.individual.pop(reader, None)
        self.writes[reader] = partial(os.write, fileno)

    def leave(self, reader: TopicReader) -> None:
        del self.writes[reader]
        self._group.individual[reader] = None
        if not self.writes:
            self._group.lanes.pop(self.encoder.format, None)

    def send(self, chunk: bytes, last: int, now: float) -> None:
        """`last`: the position of the last message. A stream whose socket does not take the whole chunk leaves."""
        size, incomplete = len(chunk), []
        for reader, write in self.writes.items():
            try:
                sent = write(chunk)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = -1
            if sent != size:
                incomplete.append((reader, sent))
        self.position, self.sent_at = last, now
        self.sent_bytes += size
        for reader, sent in incomplete:
            reader.leave_lane(unsent=chunk[sent:] if sent >= 0 else None)


class Batch:
    """Live messages for the streams of one subscription, encoded once for those with the same format."""

    __slots__ = ("_chunks", "_messages", "_must_read")

    def __init__(self) -> None:
        self._chunks: dict[str, bytes] = {}
        self._messages: list[Message] = []
        self._must_read = False

    def add(self, live: LiveMessages) -> None:
        """Messages that follow those before."""
        name = name_of(live.topic)
        self._messages += [live_message(name, at, bytes(entry)) for at, entry in enumerate(live.entries, live.first)]
        # Only the log says whether the topic was closed or deleted.
        self._must_read = self._must_read or not live.entries

    def send(self, group: Group) -> None:
        # A copy: streams that leave their lane below have already been sent these messages.
        individual = list(group.individual)
        if self._messages:
            last, now = self._messages[-1].position, time.monotonic()
            for lane in list(group.lanes.values()):
                if chunk := self._chunk(lane.encoder):
                    lane.send(chunk, last, now)
                else:
                    individual += lane.writes
            self._offer(individual, now)
        if self._must_read:
            for reader in list(group):
                reader.fall_behind()

    def _offer(self, readers: list[TopicReader], now: float) -> None:
        first, last = self._messages[0].position, self._messages[-1].position
        for reader in readers:
            chunk = self._chunk(reader.encoder)
            if not (chunk and reader.deliver(chunk, first, last, now)):
                reader.leave_lane()
                reader.cursor.offer(self._messages)
                reader.wake()

    def _chunk(self, encoder: TopicEncoder) -> bytes:
        """The bytes for all readers with this format. Empty: the batch must go through the streams' greenlets."""
        chunk = self._chunks.get(encoder.format)
        if chunk is None:
            body = encoder.live(self._messages)
            chunk = self._chunks[encoder.format] = http_chunk(body) if len(body) <= MAX_CHUNK_BYTES else b""
        return chunk
