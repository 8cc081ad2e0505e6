"""What requests of Durable Streams say, beside what those of all topics do. Pure, but for Flask's request."""

import re
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
from flask import request

from everstream.errors import InvalidInput
from everstream.log.topic_records import JSON, NewMessage, TopicConfig
from everstream.web.publications import compact_json, data_of_body, new_message

PREFIX = "/v1/stream/"
MAX_MESSAGES = 10_000
MAX_SEQUENCE_CHARS = 256
DEFAULT_TYPE = "application/octet-stream"
BEGINNING = "-1"
NOW = "now"
OFFSET = "-1|now|([0-9]{16})(?:_[0-9]{16})?"
"""The second number stands in those of the reference server, whose first offset clients know."""
_OFFSET = re.compile(OFFSET, re.ASCII)
_COUNT = re.compile("0|[1-9][0-9]{0,11}", re.ASCII)
_EXPIRY = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_messages = msgspec.json.Decoder(list[msgspec.Raw])
_message = msgspec.json.Decoder(msgspec.Raw)

Live = Literal["", "long-poll", "sse"]


class ReadRequest(NamedTuple):
    """`offset`: -1, `now`, or a position. `cursor`: see `cdn_cursor`."""

    offset: str
    live: Live
    cursor: str

    def position(self, top: int) -> int:
        """`top`: what `now` is."""
        return top if self.offset == NOW else position_of(self.offset)


class Fork(NamedTuple):
    """`offset` empty: the end of the source. `sub_offset`: of what follows the offset, so many messages of JSON, or so
    many bytes of the next message of any other type."""

    source: str
    offset: str
    sub_offset: int

    @property
    def text(self) -> str:
        """What is compared when the same fork is asked for again."""
        return f"{self.source} {self.offset} {self.sub_offset}"


def read_request() -> ReadRequest:
    """Raises InvalidInput."""
    offsets, live = request.args.getlist("offset"), request.args.get("live", "")
    if len(offsets) > 1 or (offsets and not _OFFSET.fullmatch(offsets[0])):
        raise InvalidInput("offset must be -1, now, or a Stream-Next-Offset, and be given once", param="offset")
    if live not in ("", "long-poll", "sse"):
        raise InvalidInput("live must be long-poll or sse, or left out", param="live")
    if live and not offsets:
        raise InvalidInput("a live request needs an offset", param="offset")
    return ReadRequest(offsets[0] if offsets else BEGINNING, live, request.args.get("cursor", ""))  # type: ignore[arg-type]


def position_of(offset: str) -> int:
    """`offset`: -1 or a position."""
    return 0 if offset == BEGINNING else int(offset[:16])


def closes() -> bool:
    return request.headers.get("Stream-Closed", "").lower() == "true"


def sequence() -> str | None:
    """`Stream-Seq`, whose scope is the stream. Raises InvalidInput."""
    given = request.headers.get("Stream-Seq") or None
    if given and len(given) > MAX_SEQUENCE_CHARS:
        raise InvalidInput(f"Stream-Seq must have at most {MAX_SEQUENCE_CHARS} characters", param="Stream-Seq")
    return given


def config(fork: Fork | None) -> TopicConfig:
    """Raises InvalidInput."""
    ttl, expires_at = request.headers.get("Stream-TTL"), request.headers.get("Stream-Expires-At")
    if ttl is not None and expires_at is not None:
        raise InvalidInput("Stream-TTL and Stream-Expires-At exclude each other", param="Stream-TTL")
    if ttl is not None and not _COUNT.fullmatch(ttl):
        raise InvalidInput("Stream-TTL must be a whole number of seconds, without leading zeros", param="Stream-TTL")
    kind = request.mimetype or ("" if fork else DEFAULT_TYPE)
    return TopicConfig(
        kind,
        ttl_s=int(ttl) if ttl is not None else None,
        expires_at=expires_at or "",
        due_ms=_unix_ms(expires_at) if expires_at is not None else None,
        fork=fork.text if fork else "",
    )


def _unix_ms(text: str) -> int:
    try:
        if _EXPIRY.fullmatch(text):
            return max(1, int(datetime.fromisoformat(text).timestamp() * 1000))
    except ValueError:
        pass
    raise InvalidInput("Stream-Expires-At must be an RFC 3339 time with its zone", param="Stream-Expires-At")


def fork() -> Fork | None:
    """Raises InvalidInput."""
    source = request.headers.get("Stream-Forked-From")
    offset, sub_offset = request.headers.get("Stream-Fork-Offset"), request.headers.get("Stream-Fork-Sub-Offset")
    if source is None:
        if offset is not None or sub_offset is not None:
            raise InvalidInput("a fork needs Stream-Forked-From", param="Stream-Forked-From")
        return None
    if not source.startswith(PREFIX):
        raise InvalidInput(f"Stream-Forked-From must begin with {PREFIX}", param="Stream-Forked-From")
    if offset is not None and (offset == NOW or not _OFFSET.fullmatch(offset)):
        raise InvalidInput("Stream-Fork-Offset must be -1 or a Stream-Next-Offset", param="Stream-Fork-Offset")
    if sub_offset is not None and not _COUNT.fullmatch(sub_offset):
        raise InvalidInput("Stream-Fork-Sub-Offset must be a whole number", param="Stream-Fork-Sub-Offset")
    if offset is None and int(sub_offset or 0):
        raise InvalidInput("Stream-Fork-Sub-Offset needs Stream-Fork-Offset", param="Stream-Fork-Offset")
    return Fork(source.removeprefix(PREFIX), offset or "", int(sub_offset or 0))


def messages_of(body: bytes, content_type: str, *, may_be_empty: bool) -> list[NewMessage]:
    """A body's messages: of a JSON array each element (section 9.1.2). Raises InvalidInput."""
    if content_type != JSON:
        return [new_message(data_of_body(body, content_type))] if body else []
    if not body:
        return []
    parts = _elements(body)
    if not parts and not may_be_empty:
        raise InvalidInput("an empty array appends nothing", param="body")
    if len(parts) > MAX_MESSAGES:
        raise InvalidInput(f"a request appends at most {MAX_MESSAGES} messages", param="body")
    return [new_message(compact_json(part, "body")) for part in parts]


def _elements(body: bytes) -> list[bytes]:
    try:
        found = _messages.decode(body) if body.lstrip()[:1] == b"[" else [_message.decode(body)]
        return [bytes(each) for each in found]
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the body must be JSON: {error}", param="body") from None
    except RecursionError:
        raise InvalidInput("arrays and objects are nested too deeply", param="body") from None
