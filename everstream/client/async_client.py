"""The async client: `sync_client` with `await`."""

import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx

from everstream.client import replies
from everstream.client.async_answer import AsyncAnswer
from everstream.client.async_topic_reader import AsyncMessages
from everstream.client.errors import Unavailable
from everstream.client.replies import MAX_REPLY_BYTES, Reply
from everstream.client.requests import JSON, Addresses, start_body, topic_body
from everstream.client.topic_subscription import TopicSubscription, follow_options
from everstream.client.transport import (
    CONNECT_TIMEOUT_S,
    LIMITS,
    MAX_EVENT_BYTES,
    REQUEST_TIMEOUT_S,
    Options,
    unavailable,
)

T = TypeVar("T")


class AsyncClient:
    """A client of one Everstream server, for any number of tasks; see `Client`."""

    def __init__(  # noqa: PLR0913 - options with defaults, by keyword
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        give_up_after_s: float | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        """See `Client`."""
        self._options = Options(
            Addresses(base_url), headers or {}, connect_timeout_s, request_timeout_s, give_up_after_s, max_event_bytes
        )
        self._is_ours = http_client is None
        self._http = http_client or httpx.AsyncClient(transport=transport, limits=LIMITS)

    async def start(  # noqa: PLR0913 - inputs and options by keyword
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        model: str | None = None,
        flush_ms: int | None = None,
        request_id: str | None = None,
        **others: Any,
    ) -> AsyncAnswer:
        """See `Client.start`."""
        options = {"model": model, "flush_ms": flush_ms, "request_id": request_id}
        body = start_body({"prompt": prompt, "messages": messages}, inputs, options, others)
        return self.follow(await self._call("POST", self._options.addresses.generations, replies.started, body))

    def follow(self, generation: str, after: int | None = None) -> AsyncAnswer:
        """See `Client.follow`. There is nothing to await: it connects with the first read."""
        return AsyncAnswer(self, self._options.subscription(generation, after))

    def follow_topics(
        self,
        topics: str | Sequence[str],
        *,
        last: int | None = None,
        since: float | str | datetime | None = None,
        after: str | None = None,
    ) -> AsyncMessages:
        """See `Client.follow_topics`. There is nothing to await."""
        return AsyncMessages(self, self._options.topic_subscription(topics, follow_options(last, since, after)))

    async def make_topic(
        self,
        topic: str,
        *,
        latest: bool | None = None,
        history: int | None = None,
        ttl_s: int | None = None,
        content_type: str | None = None,
    ) -> None:
        """See `Client.make_topic`."""
        body = topic_body({"latest": latest, "history": history, "ttl_s": ttl_s, "content_type": content_type})
        await self._call("PUT", self._options.addresses.topic(topic), replies.made, body)

    async def stop(self, generation: str) -> str:
        """See `Client.stop`."""
        return await self._call("DELETE", self._options.addresses.generation(generation), replies.stopped)

    async def close(self) -> None:
        """Close all connections."""
        if self._is_ours:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open_stream(self, address: str, headers: Mapping[str, str]) -> tuple[httpx.Response, Reply]:
        """For `AsyncReader`, see `Client.open_stream`."""
        request = self._http.build_request(
            "GET", address, headers=self._options.all_headers(headers), timeout=self._options.timeout()
        )
        response = await self._http.send(request, stream=True, follow_redirects=False)
        reply = Reply(response.status_code, response.headers, b"", time.time())
        if not reply.is_stream:
            try:
                reply = reply._replace(body=await _bounded(response.aiter_bytes()))
            finally:
                await response.aclose()
        return response, reply

    def events_address(self, generation: str) -> str:
        """For `AsyncAnswer`."""
        return self._options.addresses.events(generation)

    def messages_address(self, subscription: TopicSubscription) -> str:
        """For `AsyncMessages`."""
        return self._options.addresses.messages(subscription.topics, subscription.query())

    async def show_end(self, generation: str, after: int) -> dict[str, Any]:
        """For `AsyncAnswer`, see `Client.show_end`."""
        return await self._call("GET", self._options.addresses.end(generation, after), replies.shown)

    async def _call(self, method: str, address: str, read: Callable[[Reply], T], body: bytes | None = None) -> T:
        backoff = self._options.backoff()
        while True:
            try:
                return read(await self._send(method, address, body))
            except (Unavailable, httpx.RequestError) as error:
                delay = backoff.failed(unavailable(error), time.monotonic())
            await anyio.sleep(delay)

    async def _send(self, method: str, address: str, body: bytes | None) -> Reply:
        headers, timeout = self._options.all_headers(JSON), self._options.timeout()
        async with self._http.stream(
            method, address, content=body, headers=headers, timeout=timeout, follow_redirects=False
        ) as response:
            return Reply(response.status_code, response.headers, await _bounded(response.aiter_bytes()), time.time())


async def _bounded(chunks: AsyncIterable[bytes]) -> bytes:
    """A body's beginning: a proxy may send any amount."""
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            break
    return body
