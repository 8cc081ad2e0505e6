"""The messages of topics, as the async client reads them."""

from collections.abc import AsyncIterator

from everstream.client.async_reader import AsyncReader
from everstream.client.errors import AnswerClosed
from everstream.client.messages import Message
from everstream.client.topic_subscription import TopicSubscription


class AsyncMessages(AsyncReader[TopicSubscription]):
    """Messages as they come, for one task; see `Messages`."""

    @property
    def position(self) -> str:
        """See `Messages.position`."""
        return self._subscription.position

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        try:
            while not self._subscription.messages and not self._subscription.is_over:
                await self._step()
        except AnswerClosed:
            raise StopAsyncIteration from None
        if not self._subscription.messages:
            raise StopAsyncIteration
        return self._subscription.messages.popleft()

    def _address(self) -> str:
        return self._client.messages_address(self._subscription)
