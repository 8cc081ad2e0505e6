"""The answer of the async client: drives a `Subscription`, as `answer` does, and with the same words."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import anyio
import httpx

from everstream.client.errors import AnswerClosed, Unavailable
from everstream.client.events import Event, Result
from everstream.client.subscription import Subscription
from everstream.client.transcript import Transcript
from everstream.client.transport import stop_read_timeout, unavailable

if TYPE_CHECKING:
    from everstream.client.async_client import AsyncClient

T = TypeVar("T")
_CLOSE_TIMEOUT_S = 5.0


class AsyncAnswer:
    """A generation, as one task reads it; see `Answer`."""

    def __init__(self, client: "AsyncClient", subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription
        self._transcript = Transcript(subscription.generation)
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._waiting: anyio.CancelScope | None = None
        self._is_busy = False
        self._is_closed = False

    @property
    def id(self) -> str:
        """The generation's id, with which it can be followed again."""
        return self._subscription.generation

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._subscription.events:
            if self._subscription.end is not None:
                raise StopAsyncIteration
            await self._step()
        event = self._subscription.events.popleft()
        self._transcript.add(event)
        return event

    def texts(self) -> AsyncIterator[str]:
        """The pieces of the text. Raises AnswerFailed, AnswerCancelled at the end of an incomplete answer."""
        return _Texts(self, self._subscription)

    async def result(self) -> Result:
        """Read to the end, and return the whole. Its `state` and `error` say whether the answer is complete."""
        async for _ in self:
            pass
        assert self._subscription.end is not None
        return self._transcript.result(self._subscription.end)

    async def stop(self) -> str:
        """Stop the generation, see `AsyncClient.stop`. The answer then ends with `cancelled`."""
        return await self._client.stop(self.id)

    async def close(self) -> None:
        """Stop reading and leave the generation running; from any task."""
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
        if self._subscription.end is not None:
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
        self._response, reply = await self._client.open_stream(self.id, self._subscription.headers())
        if self._subscription.opened(reply):
            stop_read_timeout(self._response)
            self._chunks = self._response.aiter_bytes()
        else:
            self._subscription.settle(await self._client.show_end(self.id, self._subscription.last))

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


class _Texts:
    """Not an async generator, which would have to be closed by whoever leaves its loop early."""

    def __init__(self, answer: AsyncAnswer, subscription: Subscription) -> None:
        self._answer = answer
        self._subscription = subscription

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        async for event in self._answer:
            if event.text:
                return event.text
        self._subscription.raise_unless_done()
        raise StopAsyncIteration
