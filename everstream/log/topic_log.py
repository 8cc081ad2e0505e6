"""The web side's client of topics: make, publish, read, delete. Synchronous; under gevent each call yields.

A message is an entry as in `entries`. Its data is JSON: of a text topic a string, of a binary one a string of base64.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
import valkey

from everstream.errors import BodyTooLarge, EverstreamError, InvalidInput, LogFull
from everstream.log.entries import decode_entry
from everstream.log.keys import Keys
from everstream.log.scripts import load_topic_script
from everstream.log.topic_errors import (
    ContentTypeConflict,
    ProducerFenced,
    ProducerGap,
    SequenceConflict,
    TopicClosed,
    TopicConflict,
    TopicGone,
    UnknownTopic,
)
from everstream.log.topic_names import is_pattern
from everstream.log.web_log import WebLog
from everstream.settings import Settings

JSON = "application/json"

SHOWN_AT_ONCE = 50
MAX_NAMES = 10_000

_encode = msgspec.msgpack.Encoder().encode
_live_decoder = msgspec.json.Decoder(tuple[int, str, int, list[msgspec.Raw]])


class Message(msgspec.Struct, gc=False):
    """`topic` is its name. `data` is JSON."""

    topic: str
    position: int
    event: str
    data: bytes


class NewMessage(NamedTuple):
    """`id`: one message of a topic's history has it; another with the same is not appended. `expires_ms`: when the
    message is no longer for new readers, in Unix ms; 0: never."""

    entry: str
    id: str = ""
    expires_ms: int = 0


class Producer(NamedTuple):
    """Durable Streams' idempotent producer (PROTOCOL.md, section 5.2.1)."""

    id: str
    epoch: int
    seq: int


class TopicConfig(msgspec.Struct, frozen=True):
    """`history`: how many messages are kept; None: all. `latest`: the newest message is the present state, which a new
    follower is sent. `ttl_s`: after how long without a reader or writer the topic is forgotten. `expires_at`: when it
    is in any case, as the client wrote it, and `due_ms`, the same in Unix ms. `fork`: what it was forked from.
    `implicit`: it was made by its first message."""

    type: str = JSON
    history: int | None = None
    latest: bool = False
    ttl_s: int | None = None
    expires_at: str = ""
    due_ms: int | None = None
    fork: str = ""
    implicit: bool = False

    def fields(self) -> dict[str, str]:
        """As the log keeps them: those that are set."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        is_set = {name: value for name, value in given.items() if value not in (None, "") and value is not False}
        return {name: str(int(value) if value is True else value) for name, value in is_set.items()}


class Payer(NamedTuple):
    """Whose room a topic takes. `limit_bytes`: the client's own limit."""

    client: str
    limit_bytes: int | None = None


class Append(NamedTuple):
    """Messages for a topic. `content_type`: of the request; None: none was given. `make`: how to make the topic if
    there is none. `closes`: the topic ends with these messages. `sequence`: Durable Streams' `Stream-Seq`."""

    topic: str
    messages: Sequence[NewMessage]
    content_type: str | None = None
    make: TopicConfig | None = None
    closes: bool = False
    producer: Producer | None = None
    sequence: str | None = None


class Published(NamedTuple):
    """`positions`: of each message; empty for a producer's duplicate, whose highest sequence number is `seq`. `top`: of
    the topic's newest message."""

    positions: list[int]
    top: int
    is_closed: bool = False
    is_new: bool = False
    seq: int | None = None


class Made(NamedTuple):
    is_new: bool
    top: int
    is_closed: bool
    type: str


class Topic(NamedTuple):
    """What is known about a topic. `messages`: how many are kept; `first`: the position of the first of them. `born`:
    the position at which it was made, which no other has."""

    name: str
    config: TopicConfig
    messages: int
    bytes: int
    first: int
    born: int
    top: int
    closed_at: int
    is_deleted: bool

    @property
    def is_closed(self) -> bool:
        return self.closed_at > 0


class Subscription(NamedTuple):
    """Names and patterns of one owner's topics."""

    owner: str
    patterns: tuple[str, ...]


class Start(NamedTuple):
    """Where a read begins: `after` a position that the client has seen, `since` a position, with the `last` messages of
    each topic, or `now`."""

    kind: Literal["after", "since", "last", "now"]
    number: int = 0


class TopicPage(NamedTuple):
    """`position`: up to which all topics were read. `reset`: why the messages may not be contiguous with what the
    client has seen; empty: they are. `more`: of the messages. `is_closed`: the one topic that was read has ended
    here."""

    messages: list[Message]
    position: int
    reset: str
    more: bool
    is_closed: bool


class LiveMessages(NamedTuple):
    """A message of the live channel. `number` counts them. Without entries: the topic was closed or deleted."""

    number: int
    topic: str
    first: int
    entries: list[msgspec.Raw]


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
        return _published(self._run(self._publish, "publish", self._given(append, payer)), append)

    def publish_all(self, appends: Sequence[Append], payer: Payer) -> list[Published | EverstreamError]:
        """The same for several topics, in one round trip: for each, what happened or why not."""
        with self._web_log.faults.recording("publish"), self._client.pipeline(transaction=False) as pipe:
            for append in appends:
                self._publish(keys=[self._keys.jobs], args=[self._keys.ns, self._given(append, payer)], client=pipe)
            replies = cast(list[list[Any]], pipe.execute())
        return [_published_or_not(reply, append) for reply, append in zip(replies, appends, strict=True)]

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
            raise _refusal(outcome, rest, None)
        top, closed, kind = rest
        return Made(outcome == b"made", int(top), bool(closed), kind.decode())

    def read(self, requests: Sequence[tuple[Subscription, Start]], max_bytes: int) -> list[TopicPage]:
        """For each request, messages of `max_bytes` in all, but at least one if there is one."""
        given = [_read_request(*request) for request in requests]
        with self._web_log.faults.recording("read of topics"):
            reply = self._read(keys=[self._keys.jobs], args=[self._keys.ns, max_bytes, _encode(given)])
        return [_page(found) for found in cast(list[list[bytes]], reply)]

    def show(self, owner: str, names: Sequence[str]) -> list[Topic | None]:
        """What is known about topics; None: it does not exist."""
        found: list[Any] = []
        with self._web_log.faults.recording("show of topics"):
            # A few at a time: all other requests wait meanwhile.
            for at in range(0, len(names), SHOWN_AT_ONCE):
                arguments = [self._keys.ns, owner, *names[at : at + SHOWN_AT_ONCE]]
                found += cast(list[Any], self._show(keys=[self._keys.jobs], args=arguments))
        return [_topic(name, *each) if each else None for name, each in zip(names, found, strict=True)]

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


def topic_id(owner: str, name: str) -> str:
    """Names have no colon, so no owner's topic can be taken for another's."""
    return f"{owner}:{name}"


def name_of(topic: str) -> str:
    return topic.rpartition(":")[2]


def owner_of(topic: str) -> str:
    return topic.rpartition(":")[0]


def binary_data(body: bytes) -> bytes:
    """The data of a binary message."""
    return b'"' + base64.b64encode(body) + b'"'


def live_message(topic: str, position: int, entry: bytes) -> Message:
    """`topic`: its name."""
    found = decode_entry(position, entry)
    return Message(topic, position, found.event, found.data)


def _read_request(subscription: Subscription, start: Start) -> list[Any]:
    names = [each for each in subscription.patterns if not is_pattern(each)]
    patterns = [each.split("/") for each in subscription.patterns if is_pattern(each)]
    return [subscription.owner, names, patterns, start.kind, str(start.number)]


def _page(found: list[bytes]) -> TopicPage:
    position, reset, more, ended, *rest = found
    messages = [
        live_message(name.decode(), int(at), entry)
        for name, at, entry in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    ]
    return TopicPage(messages, int(position), reset.decode(), bool(more), bool(ended))


def _topic(name: str, messages: int, first: bytes, *pairs: bytes) -> Topic:
    known: Mapping[str, str] = {
        key.decode(): value.decode() for key, value in zip(pairs[::2], pairs[1::2], strict=True)
    }

    def number(field: str) -> int | None:
        return int(known[field]) if field in known else None

    config = TopicConfig(
        known["type"],
        number("history"),
        bool(number("latest")),
        number("ttl_s"),
        known.get("expires_at", ""),
        number("due_ms"),
        known.get("fork", ""),
        "implicit" in known,
    )
    return Topic(
        name,
        config,
        messages,
        number("bytes") or 0,
        int(first or 0),
        number("born") or 0,
        number("top") or 0,
        number("closed") or 0,
        "deleted" in known,
    )


def _published(reply: list[Any], append: Append) -> Published:
    outcome, *rest = reply
    if outcome == b"ok":
        top, closed, made, positions = rest
        return Published([int(each) for each in positions], int(top), bool(closed), made == b"1")
    if outcome == b"duplicate":
        top, closed, seq = rest
        return Published([], int(top), bool(closed), seq=int(seq))
    raise _refusal(outcome, rest, append.producer)


def _published_or_not(reply: list[Any], append: Append) -> Published | EverstreamError:
    try:
        return _published(reply, append)
    except EverstreamError as error:
        return error


def _refusal(outcome: bytes, rest: Sequence[Any], producer: Producer | None) -> EverstreamError:
    if refusal := _REFUSALS.get(outcome):
        return refusal()
    match outcome:
        case b"closed":
            return TopicClosed(int(rest[0]))
        case b"type_conflict":
            return ContentTypeConflict(rest[0].decode())
        case b"fenced":
            return ProducerFenced(int(rest[0]))
        case b"gap":
            assert producer is not None
            return ProducerGap(int(rest[0]), producer.seq)
        case _:
            raise AssertionError(f"the script returned {outcome!r}")


_REFUSALS: dict[bytes, Callable[[], EverstreamError]] = {
    b"unknown": UnknownTopic,
    b"unknown_source": lambda: UnknownTopic("there is no such topic to fork", param="Stream-Forked-From"),
    b"gone": TopicGone,
    b"gone_source": lambda: TopicConflict("the topic to fork was deleted", param="Stream-Forked-From"),
    b"conflict": lambda: TopicConflict("this topic exists, and was made otherwise"),
    b"sequence_conflict": lambda: SequenceConflict("Stream-Seq must be above the last one", param="Stream-Seq"),
    b"beyond_source": lambda: InvalidInput(
        "Stream-Fork-Offset is beyond the end of the source", param="Stream-Fork-Offset"
    ),
    b"epoch_begins_at_0": lambda: InvalidInput("a new epoch begins with the sequence number 0", param="Producer-Seq"),
    b"too_many_to_copy": lambda: InvalidInput(
        "a topic with more than 10,000 messages or 16 MiB can't be forked", param="Stream-Forked-From"
    ),
    b"full": lambda: LogFull("the topics have no room for more; delete some, or try again later"),
}
