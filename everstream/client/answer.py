"""The answer of the sync client."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from everstream.client.events import Event, Result
from everstream.client.reader import Reader
from everstream.client.subscription import Subscription
from everstream.client.transcript import Transcript

if TYPE_CHECKING:
    from everstream.client.sync_client import Client


class Answer(Reader[Subscription]):
    """A generation, as one thread reads it. Iterate over it for its events, up to and including the terminal one, or
    use `texts` or `result`; each goes on where the last one stopped. It keeps what it has read, for `result`.

    Lost connections are made again, without repeating or losing an event. All that reads raises RequestRefused, GaveUp,
    InvalidStream, AnswerClosed.
    """

    def __init__(self, client: "Client", subscription: Subscription) -> None:
        super().__init__(client, subscription)
        self._transcript = Transcript(subscription.generation)

    @property
    def id(self) -> str:
        """The generation's id, with which it can be followed again."""
        return self._subscription.generation

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._subscription.events:
            if self._subscription.end is not None:
                raise StopIteration
            self._step()
        event = self._subscription.events.popleft()
        self._transcript.add(event)
        return event

    def texts(self) -> Iterator[str]:
        """The pieces of the text. Raises AnswerFailed, AnswerCancelled at the end of an incomplete answer."""
        for event in self:
            if event.text:
                yield event.text
        self._subscription.raise_unless_done()

    def result(self) -> Result:
        """Read to the end, and return the whole. Its `state` and `error` say whether the answer is complete."""
        for _ in self:
            pass
        assert self._subscription.end is not None
        return self._transcript.result(self._subscription.end)

    def stop(self) -> str:
        """Stop the generation, see `Client.stop`. The answer then ends with `cancelled`."""
        return self._client.stop(self.id)

    def _address(self) -> str:
        return self._client.events_address(self.id)

    def _settle(self) -> None:
        self._subscription.settle(self._client.show_end(self.id, self._subscription.last))
