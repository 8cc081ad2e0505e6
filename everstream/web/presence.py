"""Reports this process's followers of topics to the log, and tells streams that ask for presence about the followers in
all processes. Used by `topic_follower`."""

import secrets
from collections.abc import Callable, Collection, Mapping

import gevent

from everstream.log.presence import TTL_S, Named, PresenceLog, Present, joined
from everstream.web import duties
from everstream.web.topic_reader import TopicReader

EVERY_S = 1.0
SLICES = int(TTL_S / 3 / EVERY_S)
"""Beside the topics that have changed, each report has one of so many parts of all others."""

ByTopic = Callable[[], Mapping[str, Collection[TopicReader]]]
"""The streams of each topic that is followed by its name."""


class Presence:
    def __init__(self, log: PresenceLog, by_topic: ByTopic) -> None:
        self._log = log
        self._by_topic = by_topic
        self._worker = ""
        self._said: dict[str, Present] = {}
        self._count = 0

    def start(self) -> None:
        """Call it in the process that serves: forked processes must not share a name."""
        self._worker = secrets.token_hex(8)
        gevent.spawn(duties.repeat, self._exchange, EVERY_S, "can't tell who follows topics")

    def _exchange(self) -> None:
        readers = self._by_topic()
        self._report({topic: _present(each) for topic, each in readers.items()})
        asked = {topic: [reader for reader in each if reader.presence] for topic, each in readers.items()}
        topics = [topic for topic, each in asked.items() if each]
        for topic, present in zip(topics, self._log.read(topics) if topics else (), strict=True):
            for reader in asked[topic]:
                reader.tell_present(topic, present)

    def _report(self, now: dict[str, Present]) -> None:
        self._count += 1
        gone = {topic: Present() for topic in self._said if topic not in now}
        turn = self._count % SLICES
        due = {
            topic: each for topic, each in now.items() if self._said.get(topic) != each or hash(topic) % SLICES == turn
        }
        if due or gone:
            self._log.report(self._worker, due | gone)
        self._said = now


def _present(readers: Collection[TopicReader]) -> Present:
    named = [Named(reader.presence, reader.opened_at) for reader in readers if reader.presence]
    return joined([Present(len(readers), named)])
