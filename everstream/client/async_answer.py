"""The answer of the async client, with the same words as `answer`."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from everstream.client.async_reader import AsyncReader
from everstream.client.events import Event, Result
from everstream.client.subscription import Subscription
from everstream.client.transcript import Transcript

if TYPE_CHECKING:
    from everstream.client.async_client import AsyncClient


class AsyncAnswer(AsyncReader[Subscription]):
    """A generation, as one task reads it; see `Answer`."""

    def __init__(self, client: "AsyncClient", subscription: Subscription) -> None:
        super().__init__(client, subscription)
        self._transcript = Transcript(subscription.generation)

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

    def _address(self) -> str:
        return self._client.events_address(self.id)

    async def _settle(self) -> None:
        self._subscription.settle(await self._client.show_end(self.id, self._subscription.last))


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
