"""The process's own publisher, which the environment configures: `publish`, `flush` and `stats` use it, and so do
`Progress` and `LogHandler` unless they have another one.

EVERSTREAM_URL is the service's address, and EVERSTREAM_API_KEY a key, if it needs one.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from everstream.client.messages import Message
from everstream.client.outbox import Stats
from everstream.client.publisher import Publisher
from everstream.client.sync_client import Client

URL_VARIABLE = "EVERSTREAM_URL"
KEY_VARIABLE = "EVERSTREAM_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

# Re-entrant, for signal handlers.
_lock = threading.RLock()
_publisher: Publisher | None = None


def publish(
    topic: str,
    data: Any,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the API's name for it
    ttl_s: float | None = None,
) -> None:
    """See `Publisher.publish`: it returns at once, whether the service is there or not."""
    default_publisher().publish(topic, data, event=event, id=id, ttl_s=ttl_s)


def flush(timeout_s: float | None = None) -> bool:
    """See `Publisher.flush`."""
    return default_publisher().flush(timeout_s)


def stats() -> Stats:
    return default_publisher().stats()


def follow(
    topics: str | Sequence[str],
    *,
    last: int | None = None,
    since: float | str | datetime | None = None,
    after: str | None = None,
) -> Iterator[Message]:
    """The messages of topics and patterns, as they come; see `Client.follow_topics`."""
    with (
        Client(service_url(), headers=key_headers()) as client,
        client.follow_topics(topics, last=last, since=since, after=after) as messages,
    ):
        yield from messages


def default_publisher() -> Publisher:
    """Made when it is needed first. Raises ValueError if EVERSTREAM_URL is not a URL."""
    global _publisher  # noqa: PLW0603 - the one of the process
    if _publisher is None:
        with _lock:
            made = _publisher or Publisher(service_url(), headers=key_headers())
            # A signal handler may have been faster.
            _publisher = _publisher or made
    return _publisher


def service_url() -> str:
    return os.environ.get(URL_VARIABLE) or DEFAULT_URL


def key_headers() -> dict[str, str]:
    key = os.environ.get(KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}
