"""Publishes messages in the background, see `Publisher`."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from everstream.client import process_end
from everstream.client.messages import checked_topic, encoded
from everstream.client.outbox import Outbox, Stats
from everstream.client.requests import Addresses
from everstream.client.sender import MakeTransport, Sender
from everstream.client.transport import CONNECT_TIMEOUT_S, Options

MAX_MESSAGES = 10_000
MAX_BYTES = 16 << 20
REQUEST_TIMEOUT_S = 30.0


class Publisher:
    """Publishes to one service, from any number of threads. `publish` never waits, and never fails because the service
    is away; `flush` waits. A forked child begins with nothing: its parent publishes what waits there."""

    def __init__(  # noqa: PLR0913 - options with defaults, by keyword
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        max_messages: int = MAX_MESSAGES,
        max_bytes: int = MAX_BYTES,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        stops_when_refused: bool = False,
        make_transport: MakeTransport | None = None,
    ) -> None:
        """`max_messages`, `max_bytes`: how much may wait. Above it, the oldest is dropped that was not sent yet.
        `stops_when_refused`: send nothing more after a message that was refused. `make_transport`: makes httpx's, once
        in each process. Raises ValueError."""
        self._options = Options(
            Addresses(base_url), headers or {}, connect_timeout_s, request_timeout_s, None, max_event_bytes=0
        )
        self._bounds = (max_messages, max_bytes)
        self._make_transport = make_transport
        self._stops_when_refused = stops_when_refused
        self._sender = self._new_sender()
        self._known_lost = 0
        process_end.watch(self)

    def publish(
        self,
        topic: str,
        data: Any,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the API's name for it
        ttl_s: float | None = None,
    ) -> None:
        """Publish what json.dumps takes, or bytes for a binary topic. It is encoded now, and sent in the background.

        `event`: a name for followers. `id`: of the messages with the same one, the topic takes the first. `ttl_s`: how
        long the message is for new followers. Raises ValueError and TypeError for what can't be sent.
        """
        self._add(checked_topic(topic), encoded(data, event, id, ttl_s))

    def publish_later(self, topic: str, make: Callable[[], bytes], due: float) -> None:
        """Publish what `make` returns when it is sent, which is not before `due` (as time.monotonic has it). It is
        called with a lock held: it must not publish. It is also called if the message is dropped."""
        self._add(topic, make, due)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything that was published before is acknowledged. Returns False if the time is over, and if
        messages were dropped or refused since the last flush."""
        is_sent = self._sender.wait_until_sent(timeout_s)
        stats = self.stats()
        lost, known = stats.dropped + stats.refused, self._known_lost
        self._known_lost = lost
        return is_sent and lost == known

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """For a program that can publish faster than the service takes it: wait until half of what may wait is free.
        Returns False if the time is over."""
        return self._sender.wait_for_room(timeout_s)

    def stats(self) -> Stats:
        return self._sender.outbox.stats

    def close(self, timeout_s: float | None = process_end.FLUSH_S) -> bool:
        """Flush, and stop the thread. Returns what `flush` does."""
        is_flushed = self.flush(timeout_s)
        self._sender.stop()
        process_end.forget(self)
        return is_flushed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def producer(self) -> str:
        """Its name for the service, of this process alone."""
        return self._sender.producer

    def renew(self) -> None:
        """For a forked child, which has none of its parent's threads, and must not use its connections."""
        # gevent's greenlets live on in a child.
        self._sender.is_stopped = True
        self._sender, self._known_lost = self._new_sender(), 0

    def _new_sender(self) -> Sender:
        return Sender(
            Outbox(*self._bounds), self._options, self._make_transport, stops_when_refused=self._stops_when_refused
        )

    def _add(self, topic: str, body: bytes | Callable[[], bytes], due: float = 0.0) -> None:
        if self._sender.is_stopped:
            raise ValueError("the publisher is closed")
        process_end.arrange_flush()
        self._sender.add(topic, body, due)
        if (left_s := process_end.left_s()) is not None:
            # Nothing else will: the flush at the end was before.
            self._sender.wait_until_sent(left_s)
