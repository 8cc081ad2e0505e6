"""What the streams of a generation and of topics have in common: pings, `busy`, `retry`, and when to connect again.
Pure; `subscription` and `topic_subscription` are made of it, and `reader` and `async_reader` drive them.
"""

import json
from abc import ABC, abstractmethod
from typing import Any

from everstream.client.backoff import Backoff
from everstream.client.errors import InvalidStream, Unavailable
from everstream.client.replies import Reply, problem
from everstream.client.sse import Decoder, ServerSentEvent

_MISSED_PINGS = 2
_SILENCES_S = (0.5, 3600.0)
"""Bounds what a server may ask for."""


class Stream(ABC):
    """`silence_s`: a link without bytes for that long is dead; None: no ping has said so yet. `pings`: of this
    connection."""

    def __init__(self, backoff: Backoff, max_event_bytes: int) -> None:
        self.silence_s: float | None = None
        self.pings = 0
        self._max_event_bytes = max_event_bytes
        self._backoff = backoff
        self._decoder = Decoder(max_event_bytes)
        self._connect_at = 0.0

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether there is no more to read."""

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """Of the next connection's request."""

    @abstractmethod
    def opened(self, reply: Reply) -> bool:
        """Whether the response is a stream; if it isn't, all of it was read before. Raises RequestRefused,
        Unavailable."""

    @abstractmethod
    def _take(self, event: ServerSentEvent) -> None: ...

    def wait_s(self, now: float) -> float:
        """How long to wait before the next connection."""
        return max(self._connect_at - now, 0.0)

    def feed(self, chunk: bytes) -> None:
        """Take what is new. Raises Unavailable, if the rest needs another connection, and InvalidStream: in both
        cases, what came before is taken."""
        for event in self._decoder.feed(chunk):
            if event.type == "ping":
                self._read_ping(json_of(event))
            elif event.type == "busy":
                raise unavailability(json_of(event))
            elif not self.is_over:
                self._take(event)

    def failed(self, cause: Unavailable, now: float) -> None:
        """The connection, or the attempt to make one, has failed. Raises GaveUp."""
        if self._decoder.retry_ms is not None:
            self._backoff.retry_s = self._decoder.retry_ms / 1000
        self._connect_at = now + self._backoff.failed(cause, now)

    def _begin(self, reply: Reply) -> None:
        """Decode another connection. Raises RequestRefused, Unavailable."""
        if not reply.is_stream:
            raise problem(reply)
        self._decoder = Decoder(self._max_event_bytes)
        self.pings = 0

    def _read_ping(self, data: Any) -> None:
        self.pings += 1
        interval = data.get("interval_ms") if isinstance(data, dict) else None
        if isinstance(interval, int | float) and interval > 0:
            least, most = _SILENCES_S
            self.silence_s = min(max(_MISSED_PINGS * interval / 1000, least), most)


def unavailability(data: Any) -> Unavailable:
    """What a server sends in place of 429 or 503, because those close an EventSource for good; or when it can't go on
    with a stream."""
    said = data if isinstance(data, dict) else {}
    return Unavailable(str(said.get("code", "busy")), str(said.get("message", "the server is busy")))


def json_of(event: ServerSentEvent) -> Any:
    """Raises InvalidStream."""
    try:
        return json.loads(event.data)
    except (ValueError, RecursionError):
        raise InvalidStream("invalid_event", f"the data of an event of type {event.type!r} is not JSON") from None
