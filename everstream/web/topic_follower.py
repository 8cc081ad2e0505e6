"""Follows topics: the read path of `follower`, for messages that any number of streams get, of any number of topics.

One per web process: one subscription to Valkey's channel, one decode and one encoding per format for all streams. A
stream first registers, then has the log read from its position, then goes live. The messages of the channel are
numbered. One that is missing sends all streams back to the log.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import gevent

from everstream.log.presence import PresenceLog
from everstream.log.topic_log import (
    LiveMessages,
    Message,
    Subscription,
    TopicLog,
    TopicPage,
    live_message,
    name_of,
    owner_of,
    topic_id,
)
from everstream.log.topic_names import is_pattern, regex
from everstream.log.web_log import READ_BYTES
from everstream.web import duties
from everstream.web.direct_writer import http_chunk
from everstream.web.open_streams import Heartbeat, OpenStreams
from everstream.web.presence import Presence
from everstream.web.read_queue import ReadQueue
from everstream.web.topic_reader import PresenceNews, TopicEncoder, TopicReader

RETRY_S = 0.5
CHECK_S = 2.0
"""How often it is checked whether all messages were heard."""
MAX_CHUNK_BYTES = 16 << 10
"""A longer chunk goes through the stream's greenlet, which sends it in pieces."""


class Group:
    """All streams of one subscription."""

    __slots__ = ("_patterns", "names", "readers")

    def __init__(self, subscription: Subscription) -> None:
        self.readers: dict[TopicReader, None] = {}
        # Not a set, whose order is random: sockets that were opened one after the other share caches.
        self.names = [each for each in subscription.patterns if not is_pattern(each)]
        self._patterns = [regex(each) for each in subscription.patterns if is_pattern(each)]

    @property
    def has_patterns(self) -> bool:
        return bool(self._patterns)

    def matches(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._patterns)


class TopicFollower:
    def __init__(self, topics: TopicLog, presence: PresenceLog, streams: OpenStreams) -> None:
        self._log = topics
        self._presence = Presence(presence, self._readers_by_topic)
        self.streams = streams
        self._groups: dict[Subscription, Group] = {}
        self._by_name: dict[str, set[Group]] = {}
        self._with_patterns: dict[str, set[Group]] = {}
        self._reads = ReadQueue(self._read, "topics")
        self._heard: int | None = None
        streams.include(self._all_readers)

    def start(self) -> None:
        """Start the greenlets that serve all streams. Call it once, in the process that serves them."""
        self._reads.start()
        self._presence.start()
        gevent.spawn(self._listen)
        gevent.spawn(duties.repeat, self._check, CHECK_S, "can't find out whether messages were missed")

    def _all_readers(self) -> Iterator[TopicReader]:
        return chain.from_iterable(group.readers for group in list(self._groups.values()))

    def _readers_by_topic(self) -> dict[str, list[TopicReader]]:
        return {topic: [each for group in groups for each in group.readers] for topic, groups in self._by_name.items()}

    def register(self, reader: TopicReader) -> None:
        """Give the reader its topics' live messages until `unregister`."""
        subscription = reader.subscription
        if (group := self._groups.get(subscription)) is None:
            group = self._groups[subscription] = Group(subscription)
            for name in group.names:
                self._by_name.setdefault(topic_id(subscription.owner, name), set()).add(group)
            if group.has_patterns:
                self._with_patterns.setdefault(subscription.owner, set()).add(group)
        group.readers[reader] = None
        self.streams.begin(reader)

    def unregister(self, reader: TopicReader) -> None:
        subscription = reader.subscription
        group = self._groups[subscription]
        group.readers.pop(reader, None)
        if group.readers:
            return
        del self._groups[subscription]
        for name in group.names:
            _discard(self._by_name, topic_id(subscription.owner, name), group)
        if group.has_patterns:
            _discard(self._with_patterns, subscription.owner, group)

    def next(self, reader: TopicReader) -> TopicPage | PresenceNews | Heartbeat | None:
        """Wait up to heartbeat_s for the next thing to send. None: the reader left, or had to because the worker stops.

        Don't call it after a page that is the last. Raises EverstreamError if the log can't supply the rest.
        """
        item: TopicPage | PresenceNews | Heartbeat | None = self.streams.next(reader, self._next)
        return item

    def _next(self, reader: TopicReader) -> TopicPage | PresenceNews | None:
        """What can be sent now; None: nothing yet. Requests a read of the log if the reader is behind."""
        cursor = reader.cursor
        if not cursor.reading:
            page = cursor.take()
            if cursor.behind and not reader.error:
                self._reads.request(reader)
            if page:
                return page
        if reader.error:
            raise reader.error
        return reader.take_present()

    def _read(self, readers: list[TopicReader]) -> None:
        # Many streams may be at the same place, above all when a topic's followers all come back.
        places = [(reader.subscription, reader.cursor.begin_read()) for reader in readers]
        different = list(dict.fromkeys(places))
        pages = dict(zip(different, self._log.read(different, READ_BYTES), strict=True))
        for reader, place in zip(readers, places, strict=True):
            reader.cursor.end_read(pages[place])

    def _listen(self) -> None:
        """Dispatch live messages to their readers for as long as the process lives."""
        while True:
            try:
                for live in self._log.subscribe():
                    self._hear(live)
                    # A read that finds data waiting does not yield, so under load no other greenlet would run.
                    gevent.sleep(0)
            except Exception as error:
                # All streams of this process depend on this greenlet, so it must survive any error.
                duties.report(error, "the subscription to topics failed, trying again")
            # Jitter, so that not all processes reconnect at once after a restart of Valkey.
            gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311

    def _hear(self, live: Sequence[LiveMessages]) -> None:
        if not live or (self._heard is not None and live[0].number != self._heard + 1):
            # Messages that were published before the subscription was in place were missed, or some that were sent.
            self._mark_all_behind()
        self._heard = live[-1].number if live else None
        # One write per stream, however many messages have come.
        batches: dict[Group, Batch] = {}
        for each in live:
            for group in self._groups_of(each.topic):
                batches.setdefault(group, Batch()).add(each)
        for group, batch in batches.items():
            batch.send(group.readers)

    def _groups_of(self, topic: str) -> list[Group]:
        groups = list(self._by_name.get(topic, ()))
        if with_patterns := self._with_patterns.get(owner_of(topic)):
            name = name_of(topic)
            groups += [group for group in with_patterns if group not in groups and group.matches(name)]
        return groups

    def _mark_all_behind(self) -> None:
        for reader in self._all_readers():
            reader.fall_behind()

    def _check(self) -> None:
        """A message that was lost shows in the number of the next one, but there may be none for long."""
        if not self._groups:
            return
        heard, sent = self._heard, self._log.last_sent()
        if sent == heard or self._heard != heard:
            return
        # Messages that were sent before we asked may be on their way.
        gevent.sleep(RETRY_S)
        if self._heard == heard:
            self._heard = sent
            self._mark_all_behind()


class Batch:
    """Live messages for all streams of one subscription, encoded once for those with the same format."""

    __slots__ = ("_chunks", "_messages", "_must_read")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._must_read = False
        self._chunks: dict[str, bytes] = {}

    def add(self, live: LiveMessages) -> None:
        """Messages that follow those before."""
        name = name_of(live.topic)
        self._messages += [live_message(name, at, bytes(entry)) for at, entry in enumerate(live.entries, live.first)]
        # What became of a topic that was closed or deleted is in the log.
        self._must_read = self._must_read or not live.entries

    def send(self, readers: Iterable[TopicReader]) -> None:
        """Write to the sockets of streams that wait for exactly this batch. Offer it to the cursors of the others."""
        if self._messages:
            now, first, last = time.monotonic(), self._messages[0].position, self._messages[-1].position
            for reader in readers:
                if not reader.deliver(self._chunk(reader.encoder), first, last, now):
                    reader.cursor.offer(self._messages)
                    reader.wake()
        if self._must_read:
            for reader in readers:
                reader.fall_behind()

    def _chunk(self, encoder: TopicEncoder) -> bytes:
        """The bytes for all readers with this format. Empty: the batch must go through the streams' greenlets."""
        chunk = self._chunks.get(encoder.format)
        if chunk is None:
            body = encoder.live(self._messages)
            chunk = self._chunks[encoder.format] = http_chunk(body) if len(body) <= MAX_CHUNK_BYTES else b""
        return chunk


def _discard(groups: dict[str, set[Group]], key: str, group: Group) -> None:
    groups[key].discard(group)
    if not groups[key]:
        del groups[key]
