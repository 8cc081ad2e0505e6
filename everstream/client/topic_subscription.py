"""Follows topics over any number of connections: a state machine without I/O, as `subscription` is for a generation.

In: responses and bytes of consecutive connections, and their failures. Out: `messages`, each exactly once and in the
order of their positions, over all topics.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus

from everstream.client.backoff import Backoff
from everstream.client.messages import (
    CLOSED,
    RESET,
    Message,
    checked_pattern,
    checked_position,
    is_position,
    since_text,
)
from everstream.client.replies import Reply
from everstream.client.requests import EVENT_STREAM, is_one_topic
from everstream.client.sse import ServerSentEvent
from everstream.client.stream import Stream, json_of, unavailability

MAX_LAST = 1000
_UNNUMBERED = ("open", "presence")


class TopicSubscription(Stream):
    """`topics`: names and patterns. `position`: that of the last message; empty: none has come yet."""

    def __init__(
        self, topics: str | Sequence[str], options: dict[str, str], backoff: Backoff, max_event_bytes: int
    ) -> None:
        """`options`: see `follow_options`. Raises ValueError."""
        super().__init__(backoff, max_event_bytes)
        self.topics = [checked_pattern(each) for each in ([topics] if isinstance(topics, str) else topics)]
        if not self.topics:
            raise ValueError("there is no topic to follow")
        self.position = options.pop("after", "")
        self.messages: deque[Message] = deque()
        self._options = options
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def query(self) -> dict[str, str]:
        """Of the next connection's request: where to begin, until a position says it."""
        return {} if self.position else self._options

    def headers(self) -> dict[str, str]:
        return {**EVENT_STREAM, "Last-Event-ID": self.position} if self.position else EVENT_STREAM

    def opened(self, reply: Reply) -> bool:
        if reply.status == HTTPStatus.NO_CONTENT and self.position:
            self._is_over = True
            return False
        self._begin(reply)
        return True

    def feed(self, chunk: bytes) -> None:
        super().feed(chunk)
        # Also of a block without an event, which says that all before it was read.
        if is_position(self._decoder.last_id) and self._decoder.last_id > self.position:
            self.position = self._decoder.last_id

    def _take(self, event: ServerSentEvent) -> None:
        if event.type == "failed":
            raise unavailability(json_of(event))
        if is_position(event.id) and str(event.id) <= self.position and event.type not in (RESET, CLOSED):
            return
        if event.type not in _UNNUMBERED:
            self._backoff.progressed()
            self.messages.append(self._message(event))
        if is_position(event.id):
            self.position = str(event.id)
        self._is_over = event.type == CLOSED and is_one_topic(self.topics)

    def _message(self, event: ServerSentEvent) -> Message:
        name = "" if event.type == "message" else event.type
        data = json_of(event)
        if is_one_topic(self.topics):
            return Message(self.topics[0], data, name, event.id or "")
        said = data if isinstance(data, dict) else {}
        is_of_service = event.type in (RESET, CLOSED)
        return Message(str(said.get("topic", "")), data if is_of_service else said.get("data"), name, event.id or "")

    def _read_ping(self, data: object) -> None:
        super()._read_ping(data)
        # A quiet topic has no other progress than a connection that lasts.
        if self.pings > 1:
            self._backoff.progressed()


def follow_options(last: int | None, since: float | str | datetime | None, after: str | None) -> dict[str, str]:
    """Where to begin. Raises ValueError, TypeError."""
    given = {"last": last, "since": since, "after": after}
    if sum(each is not None for each in given.values()) > 1:
        raise TypeError("give only one of last, since and after")
    if after is not None:
        return {"after": checked_position(after)}
    if since is not None:
        return {"since": since_text(since)}
    if last is None:
        return {}
    if isinstance(last, bool) or not isinstance(last, int) or not 1 <= last <= MAX_LAST:
        raise ValueError(f"last is a number of messages from 1 to {MAX_LAST}, not {last!r}")
    return {"last": str(last)}
