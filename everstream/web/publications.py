"""What a request publishes: from JSON, text or bytes to messages. Pure, but for the clock. Called by the routes of all
APIs that have topics."""

import re
import time
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType
from werkzeug.datastructures import Headers

from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.log.topic_records import JSON, NewMessage, Producer, binary_data

OWN_EVENTS = ("open", "reset", "closed", "failed", "ping", "presence", "busy", "message", "error")
"""Names of events that a publisher may not use: they are ours, or EventSource's."""
MAX_MESSAGES = 1000
MAX_ID_CHARS = 128
MAX_TTL_S = 31_536_000
_EVENT = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,16}", re.ASCII)
MAX_INTEGER = 2**53 - 1
"""JavaScript's."""
_FIELD = re.compile(r"`\$(?:\[[0-9]+\])?\.([a-z0-9_]+)`")
_UNKNOWN = re.compile(r"unknown field `(.*)`", re.DOTALL)
_HEADROOM = 64
"""Followers decode data inside of other arrays, so it must be well below the depth that the decoder can handle."""


class Publication(msgspec.Struct, forbid_unknown_fields=True):
    """`data`: any JSON; for a binary topic, `base64` instead. `id`: a message that has it already is not repeated."""

    data: msgspec.Raw | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET
    event: str = ""
    id: Annotated[str, Meta(max_length=MAX_ID_CHARS)] = ""
    ttl_s: Annotated[float, Meta(gt=0, le=MAX_TTL_S)] | None = None
    topic: str | None = None


class MessageOptions(NamedTuple):
    event: str = ""
    id: str = ""
    ttl_s: float | None = None


PLAIN = MessageOptions()

_publications = msgspec.json.Decoder(list[Publication])
_publication = msgspec.json.Decoder(Publication)


def parse(body: bytes) -> list[Publication]:
    """One publication, or a list of them. Raises InvalidInput."""
    try:
        found = _publications.decode(body) if body.lstrip()[:1] == b"[" else [_publication.decode(body)]
    except msgspec.DecodeError as error:
        what = f'a message is {{"data": …, "event"?, "id"?, "ttl_s"?}}: {error}'
        raise InvalidInput(what, param=_field_of(error) or "body") from None
    except UnicodeDecodeError:
        raise InvalidInput("the body must be UTF-8", param="body") from None
    except RecursionError:
        raise _too_deep("data") from None
    if not 1 <= len(found) <= MAX_MESSAGES:
        raise InvalidInput(f"a request publishes 1 to {MAX_MESSAGES} messages", param="body")
    return found


def _field_of(error: Exception) -> str | None:
    """The one at fault: "… - at `$[2].field`", or "Object contains unknown field `field`"."""
    named = _FIELD.search(str(error)) or _UNKNOWN.search(str(error))
    return named[1][:100] if named else None


def _too_deep(param: str) -> InvalidInput:
    return InvalidInput("arrays and objects are nested too deeply", param=param)


def message_of(publication: Publication, content_type: str) -> NewMessage:
    """For a topic of this type. Raises InvalidInput."""
    data = _data_of(publication, content_type)
    return new_message(data, MessageOptions(publication.event, publication.id, publication.ttl_s))


def _data_of(publication: Publication, content_type: str) -> bytes:
    if is_binary(content_type):
        if publication.base64 is UNSET or publication.data is not UNSET:
            raise InvalidInput(
                f"this topic is {content_type}, so a message has base64 in place of data", param="base64"
            )
        return binary_data(publication.base64)
    if publication.data is UNSET or publication.base64 is not UNSET:
        raise InvalidInput("a message needs data", param="data")
    data = bytes(publication.data)
    if content_type != JSON and not data.startswith(b'"'):
        raise InvalidInput(f"this topic is {content_type}, so data must be a string", param="data")
    return compact_json(data)


def new_message(data: bytes, options: MessageOptions = PLAIN) -> NewMessage:
    """`data`: compact JSON. Raises InvalidInput."""
    event, message_id, ttl_s = options
    if event and (event in OWN_EVENTS or not _EVENT.fullmatch(event)):
        raise InvalidInput(
            f"event must be 1 to 64 characters of A-Z a-z 0-9 _ . : -, and none of {', '.join(OWN_EVENTS)}",
            param="event",
        )
    if len(message_id) > MAX_ID_CHARS:
        raise InvalidInput(f"id must have at most {MAX_ID_CHARS} characters", param="id")
    expires_ms = int((time.time() + ttl_s) * 1000) if ttl_s else 0
    return NewMessage(f'["{event}",{data.decode()}]', message_id, expires_ms)


def data_of_body(body: bytes, content_type: str) -> bytes:
    """One message's data, in a body of this type: text as a JSON string, bytes as one of base64. Text that is not UTF-8
    is an array with one string of base64."""
    if is_binary(content_type):
        return binary_data(body)
    try:
        return encode_json(body.decode())
    except UnicodeDecodeError:
        return b"[" + binary_data(body) + b"]"


def check_text(body: bytes) -> None:
    """Raises InvalidInput."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("text must be UTF-8", param="body") from None


def compact_json(data: bytes, param: str = "data") -> bytes:
    """The same value without spaces, and so without line breaks. `data`: valid JSON, but for its UTF-8. Raises
    InvalidInput."""
    try:
        deeper = msgspec.json.format(b"[" * _HEADROOM + data + b"]" * _HEADROOM, indent=-1)
        deeper.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{param} must be UTF-8", param=param) from None
    except RecursionError:
        raise _too_deep(param) from None
    return deeper[_HEADROOM:-_HEADROOM]


def is_binary(content_type: str) -> bool:
    """Whether it can't be shown in an event as it is (Durable Streams, section 5.8)."""
    return content_type != JSON and not content_type.startswith("text/")


def producer_of(headers: Headers) -> Producer | None:
    """From the three headers of Durable Streams (PROTOCOL.md, section 5.2.1). Raises InvalidInput."""
    given = [headers.get(name) for name in ("Producer-Id", "Producer-Epoch", "Producer-Seq")]
    if all(each is None for each in given):
        return None
    producer, epoch, seq = given
    if producer is None or epoch is None or seq is None:
        raise InvalidInput("Producer-Id, Producer-Epoch and Producer-Seq come together", param="Producer-Id")
    if not 1 <= len(producer) <= MAX_ID_CHARS or " " in producer:
        raise InvalidInput(f"Producer-Id must have 1 to {MAX_ID_CHARS} characters, no space", param="Producer-Id")
    return Producer(producer, _integer(epoch, "Producer-Epoch"), _integer(seq, "Producer-Seq"))


def _integer(text: str, param: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > MAX_INTEGER:
        raise InvalidInput(f"{param} must be a whole number from 0 to {MAX_INTEGER}", param=param)
    return int(text)


def options_of(args: Mapping[str, Any]) -> MessageOptions:
    """`event`, `id` and `ttl_s` of a message whose body is the data alone. Raises InvalidInput."""
    given = {name: args[name] for name in ("event", "id", "ttl_s") if args.get(name)}
    try:
        found = msgspec.convert(given, Publication, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), param=_field_of(error)) from None
    return MessageOptions(found.event, found.id, found.ttl_s)
