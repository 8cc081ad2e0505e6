"""A topic's messages in Durable Streams' events (section 5.8). Pure: messages in, bytes out.

Each event `data` is followed by an event `control`, which has the offset to go on from.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from everstream.apis.durable_streams.cdn_cursor import next_cursor
from everstream.errors import EverstreamError
from everstream.log.entries import encode_json
from everstream.log.positions import position_text
from everstream.log.presence import Present
from everstream.log.topic_records import JSON, Message, TopicPage
from everstream.web.publications import is_binary
from everstream.web.sse import GREETING, HEARTBEAT

_decode = msgspec.json.decode


class DurableEncoder:
    """A `TopicEncoder`. `cursor`: the client's. `offset`: the one that it has asked for."""

    ends_at_reset = True
    heartbeat = HEARTBEAT

    def __init__(self, content_type: str, cursor: str, offset: int) -> None:
        self._type, self._cursor, self._offset = content_type, cursor, offset
        self.format = f"durable/{content_type}/{cursor}"

    def start(self, retry_ms: int) -> bytes:  # noqa: ARG002 - its clients have their own delays
        return GREETING

    def page(self, page: TopicPage, *, is_first: bool) -> Iterator[bytes]:
        if page.reset:
            return
        if page.messages:
            yield _data(page.messages, self._type)
            self._offset = page.messages[-1].position
        elif page.more or not is_first:
            # Messages have expired, or were encoded by `live`, which may be another stream's.
            self._offset = page.position
        if page.messages or page.is_closed or is_first:
            yield self._control(self._offset, up_to_date=not page.more, is_closed=page.is_closed)

    def live(self, messages: Sequence[Message]) -> bytes:
        return _data(messages, self._type) + self._control(messages[-1].position, up_to_date=True)

    def presence(self, topic: str, present: Present) -> bytes:  # noqa: ARG002 - nobody can ask for it
        return b""

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - its clients come back by themselves
        return b""

    def lost(self, error: EverstreamError) -> bytes:  # noqa: ARG002 - the next request is answered with it
        return b""

    def _control(self, offset: int, *, up_to_date: bool, is_closed: bool = False) -> bytes:
        return control(offset, self._cursor, up_to_date=up_to_date, is_closed=is_closed)


def control(offset: int, cursor: str, *, up_to_date: bool, is_closed: bool = False) -> bytes:
    """`cursor`: the client's."""
    said: dict[str, Any] = {"streamNextOffset": offset_text(offset)}
    if is_closed:
        said["streamClosed"] = True
    else:
        said["streamCursor"] = next_cursor(cursor)
    if up_to_date:
        said["upToDate"] = True
    return _event("control", encode_json(said))


def json_event(values: Sequence[bytes]) -> bytes:
    return _event("data", b"[" + b",".join(values) + b"]")


def _event(name: str, data: bytes) -> bytes:
    """Without the space after `data:`, as the protocol's tests want it. A line that begins with one needs another."""
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    text = b"\n".join(b"data:%b%b" % (b" " if line.startswith(b" ") else b"", line) for line in lines)
    return b"event: %b\n%b\n\n" % (name.encode(), text)


def _data(messages: Sequence[Message], content_type: str) -> bytes:
    if content_type == JSON:
        return json_event([message.data for message in messages])
    body = body_of(messages, content_type)
    if is_binary(content_type):
        return _event("data", base64.b64encode(body))
    return _event("data", body.decode(errors="replace").encode())


def body_of(messages: Sequence[Message], content_type: str) -> bytes:
    """What was appended: a JSON array, or the bytes."""
    if content_type == JSON:
        return b"[" + b",".join(message.data for message in messages) + b"]"
    return b"".join(_bytes_of(message.data, content_type) for message in messages)


def _bytes_of(data: bytes, content_type: str) -> bytes:
    """See `publications.data_of_body`."""
    if is_binary(content_type):
        return base64.b64decode(data)
    text = _decode(data)
    return text.encode() if isinstance(text, str) else base64.b64decode(text[0])


def offset_text(offset: int) -> str:
    """`offset`: a position, or the number of a generation's entry."""
    return position_text(offset)
