"""Topics' messages as events for EventSource. Pure: messages in, bytes out.

An event's id is its position, 16 digits, and in a ticket's stream `.<signature>`. So any id of a stream of topics tells
where to go on in all of them.
"""

from collections.abc import Iterator, Sequence

import msgspec

from everstream.errors import EverstreamError
from everstream.log.entries import encode_json, string_or_json
from everstream.log.positions import position_text
from everstream.log.presence import Present
from everstream.log.topic_records import Message, TopicPage, name_of
from everstream.web.sse import GREETING, HEARTBEAT, event, retry, text_lines


class TopicEventEncoder:
    """A `TopicEncoder`. `opening`: the data of `open`. `has_several`: each message's data says its topic. `ping_ms`:
    heartbeats are events that a page can see, after this time without others; 0: they are comments."""

    ends_at_reset = False

    def __init__(
        self,
        opening: dict[str, object],
        *,
        has_several: bool = False,
        is_text: bool = False,
        ping_ms: int = 0,
        signature: str = "",
    ) -> None:
        self._opening, self._has_several, self._is_text = opening, has_several, is_text
        self._suffix = f".{signature}" if signature else ""
        self.format = f"topics/{has_several:d}{is_text:d}{self._suffix}"
        self._ping = event("ping", encode_json({"interval_ms": ping_ms})) if ping_ms else b""

    @property
    def heartbeat(self) -> bytes:
        return self._ping or HEARTBEAT

    def start(self, retry_ms: int) -> bytes:
        return GREETING + retry(retry_ms) + self._ping

    def page(self, page: TopicPage, *, is_first: bool) -> Iterator[bytes]:
        if is_first:
            # Without messages, what comes next follows this position.
            yield event("open", encode_json(self._opening), "" if page.messages else self._id(page.position))
        if page.reset:
            at = page.messages[0].position - 1 if page.messages else page.position
            yield event("reset", encode_json({"reason": page.reset}), self._id(at))
        yield from map(self._message, page.messages)
        if is_first and page.messages and not page.more:
            # No event, but a browser remembers the id: a latest message may be older than what others have published.
            yield b"id: %b\n\n" % self._id(page.position).encode()
        if page.is_closed:
            yield event("closed", encode_json({"reason": "closed"}), self._id(page.position))

    def live(self, messages: Sequence[Message]) -> bytes:
        return b"".join(map(self._message, messages))

    def presence(self, topic: str, present: Present) -> bytes:
        return event("presence", encode_json({"topic": name_of(topic), **msgspec.to_builtins(present)}))

    def reconnect(self, retry_ms: int) -> bytes:
        return retry(retry_ms)

    def lost(self, error: EverstreamError) -> bytes:
        return event("failed", encode_json({"code": error.code, "message": error.message}))

    def _message(self, message: Message) -> bytes:
        event_id = self._id(message.position)
        if self._is_text:
            name = f"event: {message.event}\n" if message.event else ""
            return f"{name}id: {event_id}\n".encode() + text_lines(string_or_json(message.data)) + b"\n"
        data = message.data
        if self._has_several:
            data = b'{"topic":"%b","data":%b}' % (message.topic.encode(), data)
        return event(message.event, data, event_id)

    def _id(self, position: int) -> str:
        return position_text(position) + self._suffix
