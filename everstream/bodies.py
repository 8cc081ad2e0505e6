"""The body of a request as a client sends it: bounded in time and in number, with errors that the client is told.

In: gunicorn's request and its connection. Out: what the application reads as `wsgi.input`, in place of gunicorn's own
body, which waits as long as something trickles in, and whose errors would count as the server's. `worker` attaches one
to each request. A connection whose body was not read to its end is closed after the answer, not drained.
"""

import logging
import socket
import ssl
import time
from contextlib import suppress
from typing import Any, NoReturn, Self

import gevent
from gevent.lock import BoundedSemaphore
from gunicorn.http.body import Body, ChunkedReader
from gunicorn.http.errors import NoMoreData, ParseException

from everstream.connections import shut
from everstream.errors import BodyTooSlow, InvalidInput, TooManyBodies

AT_ONCE = 128
"""Bodies that a worker waits for. Far below its connections, and each may take the memory of a whole body."""
LINGER_S = 2.0
LINGER_BYTES = 4 << 20
"""Read and dropped after an answer, as closing with unread data resets the connection, and that may overtake it."""
_READ_BYTES = 64 << 10


class Places:
    """Of one worker: for bodies that are waited for, and for connections that linger after an answer."""

    def __init__(self) -> None:
        self.waiting = BoundedSemaphore(AT_ONCE)
        self.lingering = BoundedSemaphore(AT_ONCE)


class Source:
    """Stands for the connection while a body is read from it.

    What is here already is read without a place; a body that has to be waited for holds one until it is over.
    """

    __slots__ = ("_connection", "_deadline", "_has_place", "_lingering", "_places", "_timeout_s")

    def __init__(self, connection: socket.socket, places: Places, timeout_s: float) -> None:
        self._connection = connection
        self._places, self._lingering = places.waiting, places.lingering
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._has_place = False

    def recv(self, size: int) -> bytes:
        """As a socket's. Raises BodyTooSlow, TooManyBodies, OSError."""
        send_timeout_s = self._connection.gettimeout()
        try:
            return self._recv(size)
        except TimeoutError:
            raise BodyTooSlow(f"the body did not come within {self._timeout_s:g} s", param="body") from None
        finally:
            self._connection.settimeout(send_timeout_s)

    def _recv(self, size: int) -> bytes:
        # A client that sends without a pause must not keep the others from their turn.
        gevent.sleep(0)
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        try:
            self._connection.settimeout(0)
            return self._connection.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._take_place()
        self._connection.settimeout(left_s)
        return self._connection.recv(size)

    def _take_place(self) -> None:
        if not self._has_place and not self._places.acquire(blocking=False):
            raise TooManyBodies(f"this process waits for {AT_ONCE} bodies, which is its limit; try again later")
        self._has_place = True

    def give_back_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._places.release()

    def linger(self) -> None:
        """Let the client have its answer, for a moment, before the connection is closed."""
        self.give_back_place()
        self._places = self._lingering
        self._deadline = time.monotonic() + LINGER_S
        shut(self._connection, socket.SHUT_WR)
        with suppress(OSError, BodyTooSlow, TooManyBodies):
            dropped = 0
            while dropped < LINGER_BYTES and (data := self.recv(_READ_BYTES)):
                dropped += len(data)


class RequestBody(Body):  # type: ignore[misc]
    """`wsgi.input`, while it is entered. Reading raises InvalidInput, BodyTooSlow, TooManyBodies, OSError."""

    def __init__(self, request: Any, source: Source, log: logging.Logger) -> None:
        super().__init__(request.body.reader)
        self._request, self._source, self._log = request, source, log
        self._connection = request.unreader.sock
        self._must_close = request.must_close

    def __enter__(self) -> Self:
        self._request.body, self._request.unreader.sock = self, self._source
        # gunicorn asks for it when it writes the response's headers: the body may have been read by then.
        self._request.must_close = self._must_close or not self._came_with_the_headers
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # gunicorn raises it when the response is written and the connection is to be closed.
        if kind is StopIteration and not self._is_over:
            self._source.linger()
        self._source.give_back_place()
        self._request.unreader.sock = self._connection

    @property
    def _came_with_the_headers(self) -> bool:
        if isinstance(self.reader, ChunkedReader):
            return False
        return bool(self.reader.length <= self._request.unreader.buf.getbuffer().nbytes)

    @property
    def _is_over(self) -> bool:
        return self.reader.parser is None if isinstance(self.reader, ChunkedReader) else self.reader.length == 0

    def _read_reader(self, size: int) -> bytes:
        """All that gunicorn's `Body` reads comes through here."""
        expected = 0 if isinstance(self.reader, ChunkedReader) else min(size, self.reader.length)
        try:
            data: bytes = super()._read_reader(size)
            if len(data) < expected:
                raise NoMoreData
        except ParseException as error:
            self._refuse(f"the chunks of the body can't be read: {type(error).__name__}")
        except NoMoreData:
            self._refuse("the connection ended before the body did")
        if self._is_over:
            self._source.give_back_place()
            self._request.must_close = self._must_close
        return data

    def _refuse(self, why: str) -> NoReturn:
        self._log.info("request refused: %s", why)
        raise InvalidInput(why, param="body", code="bad_request") from None
