"""Messages of topics: the JSON in which one is published, and what a follower is given. Pure."""

import base64
import json
import re
from datetime import datetime
from typing import Any, NamedTuple

MAX_TOPIC_CHARS = 200
MAX_ID_CHARS = 128
MAX_TTL_S = 31_536_000
RESET, CLOSED = "reset", "closed"
OWN_EVENTS = frozenset({"open", "ping", "presence", "busy", "failed", "message", "error", RESET, CLOSED})
"""Names that a publisher can't give."""
_SEGMENT = re.compile("[A-Za-z0-9._~@+-]+")
_EVENT = re.compile("[A-Za-z0-9_.:-]{1,64}")
_POSITION = re.compile("[0-9]{16}")


class Message(NamedTuple):
    """`event`: the publisher's name for it; empty: none. `id`: its position, with which one can go on after it.

    Two kinds come from the service. `reset`: messages before this one are missing, because they were no longer kept or
    the topic was deleted. `closed`: the topic takes no more messages; `data` says why.
    """

    topic: str
    data: Any
    event: str
    id: str

    @property
    def is_reset(self) -> bool:
        return self.event == RESET

    @property
    def is_closed(self) -> bool:
        return self.event == CLOSED

    @property
    def time(self) -> float:
        """When it was published, in seconds since 1970."""
        return int(self.id) / 1e6 if is_position(self.id) else 0.0


def is_position(text: object) -> bool:
    return isinstance(text, str) and _POSITION.fullmatch(text) is not None


def checked_topic(topic: str) -> str:
    """Raises ValueError."""
    return _checked(topic, frozenset())


def checked_pattern(topic: str) -> str:
    """A topic, or a pattern in which `*` stands for one segment and `**` for any number. Raises ValueError."""
    return _checked(topic, frozenset({"*", "**"}))


def is_pattern(topic: str) -> bool:
    return "*" in topic


def encoded(data: Any, event: str | None, message_id: str | None, ttl_s: float | None) -> bytes:
    """One message of a POST. Raises ValueError and TypeError."""
    fields = _content(data)
    if event is not None:
        fields["event"] = checked_event(event)
    if message_id is not None:
        fields["id"] = _checked_id(message_id)
    if ttl_s is not None:
        fields["ttl_s"] = _checked_ttl(ttl_s)
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def checked_event(event: str) -> str:
    """Raises ValueError."""
    if not isinstance(event, str) or not _EVENT.fullmatch(event) or event in OWN_EVENTS:
        raise ValueError(f"an event is 1 to 64 of A-Z a-z 0-9 _ . : - and not one of the service's, not {event!r}")
    return event


def checked_position(position: str) -> str:
    """Raises ValueError."""
    if not is_position(position):
        raise ValueError(f"a position is 16 digits, the id of a message, not {position!r}")
    return position


def since_text(since: float | str | datetime) -> str:
    """A time as the service takes it: seconds since 1970, or RFC 3339. Raises ValueError."""
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ValueError("since has no time zone")
        return repr(since.timestamp())
    return since if isinstance(since, str) else repr(float(since))


def clean(text: str) -> str:
    """Without the lone surrogates that a file's name may have, and JSON may not."""
    return str(text).encode("utf-8", "replace").decode()


def _content(data: Any) -> dict[str, Any]:
    if isinstance(data, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(data).decode()}
    return {"data": data}


def _checked(topic: str, wildcards: frozenset[str]) -> str:
    segments = topic.split("/") if isinstance(topic, str) else [""]
    good = all(each in wildcards or (_SEGMENT.fullmatch(each) and each not in (".", "..")) for each in segments)
    if not good or len(topic) > MAX_TOPIC_CHARS:
        raise ValueError(f"a topic is up to 200 characters, A-Z a-z 0-9 . _ ~ @ + - in segments a/b, not {topic!r}")
    return topic


def _checked_ttl(ttl_s: float) -> float:
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= MAX_TTL_S:
        raise ValueError(f"ttl_s is a number of seconds above 0, up to {MAX_TTL_S}, not {ttl_s!r}")
    return ttl_s


def _checked_id(message_id: str) -> str:
    if not isinstance(message_id, str) or not 1 <= len(message_id) <= MAX_ID_CHARS:
        raise ValueError(f"a message's id is a string of 1 to {MAX_ID_CHARS} characters, not {message_id!r}")
    return message_id
