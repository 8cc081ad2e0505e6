"""The web side's client of topics: make, publish, read, delete. Synchronous; under gevent each call yields."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import msgspec
import valkey

from everstream.errors import BodyTooLarge, EverstreamError
from everstream.log.keys import Keys
from everstream.log.scripts import load_topic_script
from everstream.log.topic_errors import TopicGone, UnknownTopic
from everstream.log.topic_names import is_pattern
from everstream.log.topic_records import (
    Append,
    LiveMessages,
    Made,
    NewMessage,
    Payer,
    Published,
    Start,
    Subscription,
    Topic,
    TopicConfig,
    TopicPage,
)
from everstream.log.topic_replies import page_of, published_of, published_or_not, refusal, topic_of
from everstream.log.web_log import WebLog
from everstream.settings import Settings

SHOWN_AT_ONCE = 50
MAX_NAMES = 10_000

_encode = msgspec.msgpack.Encoder().encode
_live_decoder = msgspec.json.Decoder(tuple[int, str, int, list[msgspec.Raw]])


class TopicLog:
    """Thread- and greenlet-safe; one per process. Raises ValkeyErrors, as `WebLog` does."""

    def __init__(self, settings: Settings, web_log: WebLog) -> None:
        self._settings = settings
        self._web_log = web_log
        self._keys = Keys(settings.namespace)
        self._client = valkey.Valkey(connection_pool=web_log.connection_pool)
        self._publish, self._make, self._read, self._show, self._delete = (
            self._client.register_script(load_topic_script(name))
            for name in ("publish", "make", "read", "show", "delete")
        )

    def publish(self, append: Append, payer: Payer) -> Published:
        """Append messages to a topic, all or none. Raises UnknownTopic, TopicGone, TopicClosed, ContentTypeConflict,
        ProducerFenced, ProducerGap, SequenceConflict, InvalidInput, LogFull."""
        return published_of(self._run(self._publish, "publish", self._given(append, payer)), append)

    def publish_all(self, appends: Sequence[Append], payer: Payer) -> list[Published | EverstreamError]:
        """The same for several topics, in one round trip: for each, what happened or why not."""
        with self._web_log.faults.recording("publish"), self._client.pipeline(transaction=False) as pipe:
            for append in appends:
                self._publish(keys=[self._keys.jobs], args=[self._keys.ns, self._given(append, payer)], client=pipe)
            replies = cast(list[list[Any]], pipe.execute())
        return [published_or_not(reply, append) for reply, append in zip(replies, appends, strict=True)]

    def _given(self, append: Append, payer: Payer) -> bytes:
        self._check_sizes(append.messages)
        return _encode(
            [
                append.topic,
                payer.client,
                append.content_type or False,
                self._limits(payer),
                append.make.fields() if append.make else False,
                append.messages,
                append.closes,
                append.producer or False,
                append.sequence or False,
            ]
        )

    def make(  # noqa: PLR0913 - options by keyword
        self,
        topic: str,
        payer: Payer,
        config: TopicConfig,
        messages: Sequence[NewMessage] = (),
        *,
        closes: bool = False,
        source: str | None = None,
        anchor: int = 0,
        partial: NewMessage | None = None,
    ) -> Made:
        """Make a topic, with these messages, or find it. `source`: copy that topic up to the position `anchor`;
        `partial` is then the first message of its own. Raises TopicConflict, UnknownTopic, TopicGone, InvalidInput,
        ContentTypeConflict, LogFull."""
        self._check_sizes(messages)
        given = [
            topic,
            payer.client,
            self._limits(payer),
            config.fields(),
            messages,
            closes,
            source or False,
            str(anchor),
            partial or False,
        ]
        outcome, *rest = self._run(self._make, "make", _encode(given))
        if outcome not in (b"made", b"known"):
            raise refusal(outcome, rest, None)
        top, closed, kind = rest
        return Made(outcome == b"made", int(top), bool(closed), kind.decode())

    def read(self, requests: Sequence[tuple[Subscription, Start]], max_bytes: int) -> list[TopicPage]:
        """For each request, messages of `max_bytes` in all, but at least one if there is one."""
        given = [_read_request(*request) for request in requests]
        with self._web_log.faults.recording("read of topics"):
            reply = self._read(keys=[self._keys.jobs], args=[self._keys.ns, max_bytes, _encode(given)])
        return [page_of(found) for found in cast(list[list[bytes]], reply)]

    def show(self, owner: str, names: Sequence[str]) -> list[Topic | None]:
        """What is known about topics; None: it does not exist."""
        found: list[Any] = []
        with self._web_log.faults.recording("show of topics"):
            # A few at a time: all other requests wait meanwhile.
            for at in range(0, len(names), SHOWN_AT_ONCE):
                arguments = [self._keys.ns, owner, *names[at : at + SHOWN_AT_ONCE]]
                found += cast(list[Any], self._show(keys=[self._keys.jobs], args=arguments))
        return [topic_of(name, *each) if each else None for name, each in zip(names, found, strict=True)]

    def names(self, owner: str, prefix: str) -> list[str]:
        """Those that begin with the prefix, last written first, of the MAX_NAMES that were."""
        found = cast(list[bytes], self._client.zrevrange(f"{self._keys.ns}topics:{owner}", 0, MAX_NAMES - 1))
        return [name.decode() for name in found if name.startswith(prefix.encode())]

    def delete(self, topic: str) -> None:
        """Raises UnknownTopic, TopicGone."""
        reply = self._delete(keys=[self._keys.jobs], args=[self._keys.ns, topic])
        if reply == b"unknown":
            raise UnknownTopic
        if reply == b"gone":
            raise TopicGone

    def last_sent(self) -> int:
        """The number of the last message of the live channel."""
        return int(cast(bytes | None, self._client.hget(self._keys.topics_clock, "sent")) or 0)

    def subscribe(self) -> Iterator[list[LiveMessages]]:
        """Yield an empty list once subscribed, then the messages that have come. Raises like `WebLog.subscribe`."""
        for messages in self._web_log.messages(self._keys.topics_live):
            yield [LiveMessages(*_live_decoder.decode(message)) for message in messages]

    def _check_sizes(self, messages: Sequence[NewMessage]) -> None:
        """A worker holds some messages of each reader that is behind. Raises BodyTooLarge."""
        most = self._settings.max_output_bytes
        if any(len(message.entry) > most for message in messages):
            raise BodyTooLarge(f"a message has at most {most} bytes in JSON", param="data")

    def _limits(self, payer: Payer) -> list[Any]:
        return [self._settings.max_topic_bytes, payer.limit_bytes or False]

    def _run(self, script: Any, call: str, given: bytes) -> list[Any]:
        with self._web_log.faults.recording(call):
            return cast(list[Any], script(keys=[self._keys.jobs], args=[self._keys.ns, given]))


def _read_request(subscription: Subscription, start: Start) -> list[Any]:
    names = [each for each in subscription.patterns if not is_pattern(each)]
    patterns = [each.split("/") for each in subscription.patterns if is_pattern(each)]
    return [subscription.owner, names, patterns, start.kind, str(start.number)]
