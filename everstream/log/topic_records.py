"""Topics and their messages, as web processes and the log pass them on. Pure.

A message is an entry as in `entries`. Its data is JSON: of a text topic a string, of a binary one a string of base64.
"""

import base64
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from everstream.log.entries import decode_entry

JSON = "application/json"


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
