"""The requests of the API: addresses, headers, and the body that starts a generation. Pure."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from everstream.client.events import checked_generation
from everstream.client.messages import checked_pattern, checked_topic, is_pattern

EVENT_STREAM = {
    "Accept": "text/event-stream",
    # A proxy that compresses a stream may hold it back.
    "Accept-Encoding": "identity",
    "Cache-Control": "no-store",
}
JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_TOPIC_CHARS = "/~@:+*"
"""Which are themselves in an address."""


class Addresses:
    """The URLs of one server, which may have a base path. Raises ValueError."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"base_url must be like https://host or https://host/path/, not {base_url!r}")
        self.generations = f"{base_url.rstrip('/')}/generations"
        self.topics = f"{base_url.rstrip('/')}/topics"

    def generation(self, generation: str) -> str:
        return f"{self.generations}/{checked_generation(generation)}"

    def events(self, generation: str) -> str:
        return f"{self.generation(generation)}/events?ping=true"

    def end(self, generation: str, after: int) -> str:
        """The snapshot of the entries after this one."""
        return f"{self.generation(generation)}?after={after}"

    def topic(self, topic: str) -> str:
        return f"{self.topics}/{quote(checked_topic(topic), safe=_TOPIC_CHARS)}"

    def messages(self, topics: Sequence[str], options: Mapping[str, str]) -> str:
        """Of one topic, or of several topics and patterns. `options`: of the query."""
        query = {"ping": "true", **options}
        if is_one_topic(topics):
            return f"{self.topic(topics[0])}?{urlencode(query)}"
        names = [("topic", checked_pattern(each)) for each in topics]
        return f"{self.topics}?{urlencode([*names, *query.items()], safe=_TOPIC_CHARS)}"


def is_one_topic(topics: Sequence[str]) -> bool:
    """Whether its messages come without their topic's name."""
    return len(topics) == 1 and not is_pattern(topics[0])


def producer_headers(producer: str, epoch: int, seq: int) -> dict[str, str]:
    """With which the service knows a batch that it has already."""
    return {**JSON, "Producer-Id": producer, "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}


def topic_body(options: Mapping[str, Any]) -> bytes:
    """Of a PUT that makes a topic. None: not given."""
    given = {name: value for name, value in options.items() if value is not None}
    return json.dumps(given, allow_nan=False).encode()


def start_body(
    main: Mapping[str, Any], inputs: Mapping[str, Any] | None, options: Mapping[str, Any], others: Mapping[str, Any]
) -> bytes:
    """The JSON body of a POST. It has a request id, so that it can be sent again until it is answered.

    `main`: `prompt` and `messages`, of which, with `inputs`, only one may be given. None: not given. Raises TypeError.
    """
    given = {name: value for name, value in main.items() if value is not None}
    if len(given) + (inputs is not None) > 1:
        raise TypeError("give only one of prompt, messages and inputs")
    fields: dict[str, Any] = dict(inputs or {})
    for name, value in {
        **given,
        **others,
        **{name: each for name, each in options.items() if each is not None},
    }.items():
        if name in fields:
            raise TypeError(f"{name} is given twice: in inputs and as an argument")
        fields[name] = value
    fields.setdefault("request_id", secrets.token_hex(16))
    return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
