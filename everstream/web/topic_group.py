"""The streams of one subscription, and what is written to them. Made by `topic_follower`.

Streams that wait, and have all that came before, are in a `Lane`, one for each format. There nothing is left to do for
a message but one call per socket: that call and a glance at anything else of each stream decide what a message costs.
All others are `apart`: what comes is offered to their cursors, and their own greenlets write it.
"""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

from everstream.log.topic_log import LiveMessages, Message, Subscription, live_message, name_of
from everstream.log.topic_names import is_pattern, regex
from everstream.web.direct_writer import http_chunk
from everstream.web.topic_reader import TopicEncoder, TopicReader

MAX_CHUNK_BYTES = 16 << 10
"""A longer chunk goes through the streams' greenlets, which send it in pieces."""


class Heard:
    """The last message of the live channel: its number there, None if it is not known, and its position."""

    __slots__ = ("number", "position")

    def __init__(self) -> None:
        self.number: int | None = None
        self.position = 0


class Group:
    """All streams of one subscription."""

    __slots__ = ("_heard", "_patterns", "apart", "lanes", "names")

    def __init__(self, subscription: Subscription, heard: Heard) -> None:
        self._heard = heard
        # Not sets, whose order is random: sockets that were opened one after the other share caches.
        self.apart: dict[TopicReader, None] = {}
        self.lanes: dict[str, Lane] = {}
        self.names = [each for each in subscription.patterns if not is_pattern(each)]
        self._patterns = [regex(each) for each in subscription.patterns if is_pattern(each)]

    @property
    def has_patterns(self) -> bool:
        return bool(self._patterns)

    def matches(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._patterns)

    def __iter__(self) -> Iterator[TopicReader]:
        return chain(self.apart, *(lane.writes for lane in self.lanes.values()))

    def lane_for(self, reader: TopicReader) -> "Lane | None":
        """The one that a stream which has nothing left to do may join."""
        # Of what it has read from the log, some may still be on its way through the channel.
        if reader.cursor.position > self._heard.position:
            return None
        lane = self.lanes.get(reader.encoder.format)
        if lane is None:
            lane = self.lanes[reader.encoder.format] = Lane(self, reader.encoder)
        return lane


class Lane:
    """Streams of one format. `position`: up to which they have all, if something was written. `sent_at`: when it was,
    by the monotonic clock."""

    __slots__ = ("_group", "encoder", "position", "sent_at", "sent_bytes", "writes")

    def __init__(self, group: Group, encoder: TopicEncoder) -> None:
        self._group = group
        self.encoder = encoder
        self.position = 0
        self.sent_at = 0.0
        self.sent_bytes = 0
        self.writes: dict[TopicReader, Callable[[bytes], int]] = {}

    def join(self, reader: TopicReader, fileno: int) -> None:
        self._group.apart.pop(reader, None)
        self.writes[reader] = partial(os.write, fileno)

    def leave(self, reader: TopicReader) -> None:
        del self.writes[reader]
        self._group.apart[reader] = None
        if not self.writes:
            self._group.lanes.pop(self.encoder.format, None)

    def send(self, chunk: bytes, last: int, now: float) -> None:
        size, troubled = len(chunk), []
        for reader, write in self.writes.items():
            try:
                sent = write(chunk)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = -1
            if sent != size:
                troubled.append((reader, sent))
        self.position, self.sent_at = last, now
        self.sent_bytes += size
        for reader, sent in troubled:
            reader.leave_lane(unsent=chunk[sent:] if sent >= 0 else None)


class Batch:
    """Live messages for the streams of one subscription, encoded once for those with the same format."""

    __slots__ = ("_messages", "_must_read")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._must_read = False

    def add(self, live: LiveMessages) -> None:
        """Messages that follow those before."""
        name = name_of(live.topic)
        self._messages += [live_message(name, at, bytes(entry)) for at, entry in enumerate(live.entries, live.first)]
        # What became of a topic that was closed or deleted is in the log.
        self._must_read = self._must_read or not live.entries

    def send(self, group: Group) -> None:
        # Those that leave their lane now have got it.
        apart = list(group.apart)
        if self._messages:
            last, now = self._messages[-1].position, time.monotonic()
            for lane in list(group.lanes.values()):
                if chunk := self._chunk(lane.encoder):
                    lane.send(chunk, last, now)
                else:
                    apart += lane.writes
            self._offer(apart)
        if self._must_read:
            for reader in list(group):
                reader.fall_behind()

    def _offer(self, readers: list[TopicReader]) -> None:
        chunks: dict[str, bytes] = {}
        first, last = self._messages[0].position, self._messages[-1].position
        for reader in readers:
            chunk = chunks.get(reader.encoder.format)
            if chunk is None:
                chunk = chunks[reader.encoder.format] = self._chunk(reader.encoder)
            if not (chunk and reader.deliver(chunk, first, last)):
                reader.leave_lane()
                reader.cursor.offer(self._messages)
                reader.wake()

    def _chunk(self, encoder: TopicEncoder) -> bytes:
        """The bytes for all readers with this format. Empty: the batch must go through the streams' greenlets."""
        body = encoder.live(self._messages)
        return http_chunk(body) if len(body) <= MAX_CHUNK_BYTES else b""
