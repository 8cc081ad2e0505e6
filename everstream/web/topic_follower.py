"""Follows topics: the read path of `follower`, for messages that any number of streams get, of any number of topics.

One per web process: one subscription to Valkey's channel, one decode and one encoding per format for all streams. A
stream first registers, then has the log read from its position, then goes live. The messages of the channel are
numbered. One that is missing sends all streams back to the log.
"""

import random
from collections.abc import Sequence
from itertools import chain

import gevent

from everstream.log.presence import PresenceLog
from everstream.log.topic_log import TopicLog
from everstream.log.topic_records import LiveMessages, Subscription, TopicPage, name_of, owner_of, topic_id
from everstream.log.web_log import READ_BYTES
from everstream.web import duties
from everstream.web.open_streams import Heartbeat, OpenStreams
from everstream.web.presence import Presence
from everstream.web.read_queue import ReadQueue
from everstream.web.topic_group import Batch, Group, LastReceived
from everstream.web.topic_reader import PresenceNews, TopicReader

RETRY_S = 0.5
CHECK_S = 2.0
"""How often it is checked whether all messages were received."""


class TopicFollower:
    def __init__(self, topics: TopicLog, presence: PresenceLog, streams: OpenStreams) -> None:
        self._log = topics
        self._presence = Presence(presence, self._readers_by_topic)
        self.streams = streams
        self._groups: dict[Subscription, Group] = {}
        self._by_name: dict[str, set[Group]] = {}
        self._with_patterns: dict[str, set[Group]] = {}
        self._reads = ReadQueue(self._read, "topics")
        self._received = LastReceived()

    def start(self) -> None:
        """Start the greenlets that serve all streams. Call it once, in the process that serves them."""
        self._reads.start()
        self._presence.start()
        gevent.spawn(self._listen)
        gevent.spawn(duties.repeat, self._check, CHECK_S, "can't find out whether messages were missed")

    def _readers_by_topic(self) -> dict[str, list[TopicReader]]:
        return {topic: [each for group in groups for each in group] for topic, groups in self._by_name.items()}

    def register(self, reader: TopicReader) -> None:
        """Give the reader its topics' live messages until `unregister`."""
        subscription = reader.subscription
        if (group := self._groups.get(subscription)) is None:
            group = self._groups[subscription] = Group(subscription, self._received)
            for name in group.names:
                self._by_name.setdefault(topic_id(subscription.owner, name), set()).add(group)
            if group.has_patterns:
                self._with_patterns.setdefault(subscription.owner, set()).add(group)
        reader.group = group
        group.individual[reader] = None
        self.streams.begin(reader)

    def unregister(self, reader: TopicReader) -> None:
        self.streams.end(reader)
        subscription = reader.subscription
        group = self._groups[subscription]
        group.individual.pop(reader, None)
        if any(group):
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
                    self._dispatch(live)
            except Exception as error:
                # All streams of this process depend on this greenlet, so it must survive any error.
                duties.report(error, "the subscription to topics failed, trying again")
            # Jitter, so that not all processes reconnect at once after a restart of Valkey.
            gevent.sleep(RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311

    def _dispatch(self, live: Sequence[LiveMessages]) -> None:
        received = self._received
        if not live or (received.number is not None and live[-1].number != received.number + len(live)):
            # A new subscription may have missed messages, and a number that does not follow shows a lost one.
            self._mark_all_behind()
        received.number = live[-1].number if live else None
        if not live:
            # The log may have begun anew, with earlier positions.
            received.position = 0
        # One write per stream, however many messages have come.
        batches: dict[Group, Batch] = {}
        for each in live:
            received.position = each.first + max(0, len(each.entries) - 1)
            for group in self._groups_of(each.topic):
                batches.setdefault(group, Batch()).add(each)
        for group, batch in batches.items():
            batch.send(group)

    def _groups_of(self, topic: str) -> list[Group]:
        groups = list(self._by_name.get(topic, ()))
        if with_patterns := self._with_patterns.get(owner_of(topic)):
            name = name_of(topic)
            groups += [group for group in with_patterns if group not in groups and group.matches(name)]
        return groups

    def _mark_all_behind(self) -> None:
        for reader in list(chain.from_iterable(self._groups.values())):
            reader.fall_behind()

    def _check(self) -> None:
        """A message that was lost shows in the number of the next one, but there may be none for long."""
        if not self._groups:
            return
        received, sent = self._received.number, self._log.last_sent()
        if sent == received or self._received.number != received:
            return
        # Messages that were sent before we asked may be on their way.
        gevent.sleep(RETRY_S)
        if self._received.number == received:
            self._received.number = sent
            self._mark_all_behind()


def _discard(groups: dict[str, set[Group]], key: str, group: Group) -> None:
    groups[key].discard(group)
    if not groups[key]:
        del groups[key]
