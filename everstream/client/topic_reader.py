"""The messages of topics, as the sync client reads them."""

from collections.abc import Iterator

from everstream.client.errors import AnswerClosed
from everstream.client.messages import Message
from everstream.client.reader import Reader
from everstream.client.topic_subscription import TopicSubscription


class Messages(Reader[TopicSubscription]):
    """Messages as they come, for one thread. The loop ends when its only topic is closed, and after `close`. It raises
    RequestRefused, GaveUp, InvalidStream."""

    @property
    def position(self) -> str:
        """Of the last message that has come: `follow_topics(…, after=position)` goes on after it."""
        return self._subscription.position

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            while not self._subscription.messages and not self._subscription.is_over:
                self._step()
        except AnswerClosed:
            raise StopIteration from None
        if not self._subscription.messages:
            raise StopIteration
        return self._subscription.messages.popleft()

    def _address(self) -> str:
        return self._client.messages_address(self._subscription)
