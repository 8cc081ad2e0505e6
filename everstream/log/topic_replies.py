"""Valkey's replies to the scripts of topics. Pure. Used by `topic_log`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everstream.errors import EverstreamError, InvalidInput, LogFull
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
from everstream.log.topic_records import (
    Append,
    Producer,
    Published,
    Topic,
    TopicConfig,
    TopicPage,
    live_message,
)


def page_of(found: list[bytes]) -> TopicPage:
    position, reset, more, ended, *rest = found
    messages = [
        live_message(name.decode(), int(at), entry)
        for name, at, entry in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    ]
    return TopicPage(messages, int(position), reset.decode(), bool(more), bool(ended))


def topic_of(name: str, messages: int, first: bytes, *pairs: bytes) -> Topic:
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


def published_of(reply: list[Any], append: Append) -> Published:
    outcome, *rest = reply
    if outcome == b"ok":
        top, closed, made, positions = rest
        return Published([int(each) for each in positions], int(top), bool(closed), made == b"1")
    if outcome == b"duplicate":
        top, closed, seq = rest
        return Published([], int(top), bool(closed), seq=int(seq))
    raise refusal(outcome, rest, append.producer)


def published_or_not(reply: list[Any], append: Append) -> Published | EverstreamError:
    try:
        return published_of(reply, append)
    except EverstreamError as error:
        return error


def refusal(outcome: bytes, rest: Sequence[Any], producer: Producer | None) -> EverstreamError:
    if make := _REFUSALS.get(outcome):
        return make()
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
