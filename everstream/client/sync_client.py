"""The sync client."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from everstream.client import replies
from everstream.client.answer import Answer
from everstream.client.errors import Unavailable
from everstream.client.link import Watchdog
from everstream.client.replies import Reply
from everstream.client.requests import JSON, Addresses, start_body, topic_body
from everstream.client.topic_reader import Messages
from everstream.client.topic_subscription import TopicSubscription, follow_options
from everstream.client.transport import (
    CONNECT_TIMEOUT_S,
    LIMITS,
    MAX_EVENT_BYTES,
    REQUEST_TIMEOUT_S,
    Options,
    bounded,
    unavailable,
)

T = TypeVar("T")


class Client:
    """A client of one Everstream server, for any number of threads. Use it as a context manager, or call `close`."""

    def __init__(  # noqa: PLR0913 - options with defaults, by keyword
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        give_up_after_s: float | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        transport: httpx.BaseTransport | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        """`base_url` may have a path. `headers` are sent with every request.

        `request_timeout_s`: how long the server may take to begin a response. `give_up_after_s`: how long to retry
        without success; None: forever. `http_client`: one to use, which is not closed; `transport`: for a new one.
        Raises ValueError.
        """
        self._options = Options(
            Addresses(base_url), headers or {}, connect_timeout_s, request_timeout_s, give_up_after_s, max_event_bytes
        )
        self._is_ours = http_client is None
        self._http = http_client or httpx.Client(transport=transport, limits=LIMITS)
        self.watchdog = Watchdog()

    def start(  # noqa: PLR0913 - inputs and options by keyword
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        model: str | None = None,
        flush_ms: int | None = None,
        request_id: str | None = None,
        **others: Any,
    ) -> Answer:
        """Start a generation from `prompt`, `messages`, or any other `inputs`; further inputs by keyword. The request
        is repeated until it is answered, which starts nothing twice. Raises RequestRefused, GaveUp, TypeError."""
        options = {"model": model, "flush_ms": flush_ms, "request_id": request_id}
        body = start_body({"prompt": prompt, "messages": messages}, inputs, options, others)
        return self.follow(self._call("POST", self._options.addresses.generations, replies.started, body))

    def follow(self, generation: str, after: int | None = None) -> Answer:
        """Read a generation from its beginning, or after entry `after`, from the first read on. Raises ValueError."""
        return Answer(self, self._options.subscription(generation, after))

    def follow_topics(
        self,
        topics: str | Sequence[str],
        *,
        last: int | None = None,
        since: float | str | datetime | None = None,
        after: str | None = None,
    ) -> Messages:
        """Read the messages of topics, and of patterns (`news/*`, `logs/**`), from the first read on: those that are
        published from then, or also the `last` ones, those `since` a time, or those `after` a position. Raises
        ValueError, TypeError."""
        return Messages(self, self._options.topic_subscription(topics, follow_options(last, since, after)))

    def make_topic(
        self,
        topic: str,
        *,
        latest: bool | None = None,
        history: int | None = None,
        ttl_s: int | None = None,
        content_type: str | None = None,
    ) -> None:
        """Make a topic that is not as publishing makes it. The request is repeated until it is answered. `latest`: it
        has one message, the present state, which each new follower is sent. `history`: how many messages are kept;
        None: all. `ttl_s`: it is forgotten after that long without a reader or writer. Raises RequestRefused if it
        exists and was made otherwise, GaveUp, ValueError."""
        body = topic_body({"latest": latest, "history": history, "ttl_s": ttl_s, "content_type": content_type})
        self._call("PUT", self._options.addresses.topic(topic), replies.made, body)

    def stop(self, generation: str) -> str:
        """Stop a generation. The request is repeated until it is answered. Returns `stopping`, how the generation
        had ended before, or `expired`. Raises RequestRefused, GaveUp, ValueError."""
        return self._call("DELETE", self._options.addresses.generation(generation), replies.stopped)

    def close(self) -> None:
        """Close all connections."""
        if self._is_ours:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open_stream(self, address: str, headers: Mapping[str, str]) -> tuple[httpx.Response, Reply]:
        """For `Reader`: one attempt to read a stream. The body of a response that is no stream is in the
        reply. Raises httpx.RequestError."""
        request = self._http.build_request(
            "GET", address, headers=self._options.all_headers(headers), timeout=self._options.timeout()
        )
        response = self._http.send(request, stream=True, follow_redirects=False)
        reply = Reply(response.status_code, response.headers, b"", time.time())
        if not reply.is_stream:
            try:
                reply = reply._replace(body=bounded(response.iter_bytes()))
            finally:
                response.close()
        return response, reply

    def events_address(self, generation: str) -> str:
        """For `Answer`."""
        return self._options.addresses.events(generation)

    def messages_address(self, subscription: TopicSubscription) -> str:
        """For `Messages`."""
        return self._options.addresses.messages(subscription.topics, subscription.query())

    def show_end(self, generation: str, after: int) -> dict[str, Any]:
        """For `Answer`: a generation's state, and what came after this entry. Raises RequestRefused, GaveUp."""
        return self._call("GET", self._options.addresses.end(generation, after), replies.shown)

    def _call(self, method: str, address: str, read: Callable[[Reply], T], body: bytes | None = None) -> T:
        backoff = self._options.backoff()
        while True:
            try:
                return read(self._send(method, address, body))
            except (Unavailable, httpx.RequestError) as error:
                delay = backoff.failed(unavailable(error), time.monotonic())
            time.sleep(delay)

    def _send(self, method: str, address: str, body: bytes | None) -> Reply:
        headers, timeout = self._options.all_headers(JSON), self._options.timeout()
        with self._http.stream(
            method, address, content=body, headers=headers, timeout=timeout, follow_redirects=False
        ) as response:
            return Reply(response.status_code, response.headers, bounded(response.iter_bytes()), time.time())
