"""The answer of the sync client: drives a `Subscription` over links."""

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

import httpx

from everstream.client.errors import AnswerClosed, Unavailable
from everstream.client.events import Event, Result
from everstream.client.link import Link
from everstream.client.subscription import Subscription
from everstream.client.transcript import Transcript
from everstream.client.transport import unavailable

if TYPE_CHECKING:
    from everstream.client.sync_client import Client


class Answer:
    """A generation, as one thread reads it. Iterate over it for its events, up to and including the terminal one, or
    use `texts` or `result`; each goes on where the last one stopped. It keeps what it has read, for `result`.

    Lost connections are made again, without repeating or losing an event. All that reads raises RequestRefused, GaveUp,
    InvalidStream, AnswerClosed.
    """

    def __init__(self, client: "Client", subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription
        self._transcript = Transcript(subscription.generation)
        self._link: Link | None = None
        self._closed = threading.Event()
        self._is_busy = False

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

    def close(self) -> None:
        """Stop reading and leave the generation running; from any thread."""
        self._closed.set()
        link = self._link
        if not self._is_busy:
            self._disconnect()
        elif link is not None:
            link.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _step(self) -> None:
        """Connect or read. After a failure, the next step connects again."""
        self._is_busy = True
        try:
            # After `_is_busy`, or a `close` between the two would be missed.
            self._raise_if_closed()
            if self._link is None:
                self._connect()
            else:
                self._read(self._link)
        except (Unavailable, httpx.RequestError) as error:
            self._disconnect()
            self._raise_if_closed()
            self._subscription.failed(unavailable(error), time.monotonic())
        except BaseException:
            self._disconnect()
            raise
        finally:
            self._is_busy = False
        if self._subscription.end is not None:
            self._disconnect()

    def _connect(self) -> None:
        self._closed.wait(self._subscription.wait_s(time.monotonic()))
        self._raise_if_closed()
        response, reply = self._client.open_stream(self.id, self._subscription.headers())
        self._link = Link(response)
        if not self._subscription.opened(reply):
            self._subscription.settle(self._client.show_end(self.id, self._subscription.last))

    def _read(self, link: Link) -> None:
        silence_s = self._subscription.silence_s
        if silence_s != link.silence_s and silence_s is not None:
            self._client.watchdog.watch(link, silence_s)
        self._subscription.feed(link.read())

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._client.watchdog.forget(link)
            link.close()

    def _raise_if_closed(self) -> None:
        if self._closed.is_set():
            raise AnswerClosed
