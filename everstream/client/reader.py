"""Drives a `Stream` over links, for the sync client: `Answer` and `Messages` are made of it."""

import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import httpx

from everstream.client.errors import AnswerClosed, Unavailable
from everstream.client.link import Link
from everstream.client.stream import Stream
from everstream.client.transport import unavailable

if TYPE_CHECKING:
    from everstream.client.sync_client import Client

S = TypeVar("S", bound=Stream)


class Reader(ABC, Generic[S]):
    def __init__(self, client: "Client", subscription: S) -> None:
        self._client = client
        self._subscription = subscription
        self._link: Link | None = None
        self._closed = threading.Event()
        self._is_busy = False

    @abstractmethod
    def _address(self) -> str:
        """Of the next connection."""

    def _settle(self) -> None:
        """Take the end of what was read before."""

    def close(self) -> None:
        """Stop reading; from any thread."""
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
        if self._subscription.is_over:
            self._disconnect()

    def _connect(self) -> None:
        self._closed.wait(self._subscription.wait_s(time.monotonic()))
        self._raise_if_closed()
        response, reply = self._client.open_stream(self._address(), self._subscription.headers())
        self._link = Link(response)
        if not self._subscription.opened(reply):
            self._settle()

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
