"""Drives a `Stream`, as `reader` does, for the async client."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import anyio
import httpx

from everstream.client.errors import AnswerClosed, Unavailable
from everstream.client.stream import Stream
from everstream.client.transport import stop_read_timeout, unavailable

if TYPE_CHECKING:
    from everstream.client.async_client import AsyncClient

S = TypeVar("S", bound=Stream)
T = TypeVar("T")
_CLOSE_TIMEOUT_S = 5.0


class AsyncReader(ABC, Generic[S]):
    """See `Reader`."""

    def __init__(self, client: "AsyncClient", subscription: S) -> None:
        self._client = client
        self._subscription = subscription
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._waiting: anyio.CancelScope | None = None
        self._is_busy = False
        self._is_closed = False

    @abstractmethod
    def _address(self) -> str:
        """Of the next connection."""

    async def _settle(self) -> None:
        """Take the end of what was read before."""

    async def close(self) -> None:
        """Stop reading; from any task."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()
        elif not self._is_busy:
            await self._disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _step(self) -> None:
        """Connect or read. After a failure, the next step connects again."""
        self._is_busy = True
        try:
            if self._chunks is None:
                await self._within(None, self._connect)
            else:
                self._subscription.feed(await self._within(self._subscription.silence_s, self._read))
        except (Unavailable, httpx.RequestError) as error:
            await self._disconnect()
            self._subscription.failed(unavailable(error), time.monotonic())
        except BaseException:
            await self._disconnect()
            raise
        finally:
            self._is_busy = False
        if self._subscription.is_over:
            await self._disconnect()

    async def _within(self, seconds: float | None, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step that ends early if it takes too long, or if another task closes the answer."""
        if self._is_closed:
            raise AnswerClosed
        with anyio.move_on_after(seconds) as scope:
            self._waiting = scope
            try:
                return await step()
            finally:
                self._waiting = None
        if self._is_closed:
            raise AnswerClosed
        raise Unavailable("timeout", "the link is silent; no ping has come")

    async def _connect(self) -> None:
        await anyio.sleep(self._subscription.wait_s(time.monotonic()))
        self._response, reply = await self._client.open_stream(self._address(), self._subscription.headers())
        if self._subscription.opened(reply):
            stop_read_timeout(self._response)
            self._chunks = self._response.aiter_bytes()
        else:
            await self._settle()

    async def _read(self) -> bytes:
        assert self._chunks is not None
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise Unavailable("connection_lost", "the stream ended before the answer") from None

    async def _disconnect(self) -> None:
        response, self._response = self._response, None
        self._chunks = None
        if response is not None:
            # Also in a task that was cancelled, but not for as long as a dead link takes.
            with anyio.move_on_after(_CLOSE_TIMEOUT_S, shield=True):
                await response.aclose()
