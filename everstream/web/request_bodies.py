"""Request bodies, bounded in time, number and total size, with errors that reach the client.

In: gunicorn's request and its connection. Out: the application's `wsgi.input`. It replaces gunicorn's own body, which
waits for as long as bytes trickle in, and whose errors would count as the server's. `worker` attaches one to each
request. If the body was not read to its end, the connection is closed after the response, not drained.
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

from everstream.errors import BodyTooSlow, InvalidInput, TooManyBodies
from everstream.web.connections import shut

AT_ONCE = 128
"""Bodies that a worker waits for, far fewer than its connections."""
TOTAL_BYTES = 128 << 20
"""Of all bodies of a worker that are incomplete. At least one of the largest allowed size fits."""
LINGER_S = 2.0
LINGER_BYTES = 16 << 20
"""Read and dropped after a response. Closing with unread data sends a reset, which may overtake the response."""
_READ_BYTES = 64 << 10


class BodyLimits:
    """One worker's limits on bodies that it waits for, and on connections that linger after a response.

    `held_bytes`: the size of what it has of incomplete bodies.
    """

    def __init__(self) -> None:
        self.waiting = BoundedSemaphore(AT_ONCE)
        self.lingering = BoundedSemaphore(AT_ONCE)
        self.held_bytes = 0


class BodySource:
    """Stands in for the connection while a body is read from it.

    Reading bytes that have already arrived needs no slot. A body that has to be waited for holds one until it ends.
    """

    __slots__ = ("_connection", "_deadline", "_has_slot", "_held_bytes", "_limits", "_slots", "_timeout_s")

    def __init__(self, connection: socket.socket, limits: BodyLimits, timeout_s: float) -> None:
        self._connection = connection
        self._limits, self._slots = limits, limits.waiting
        self._held_bytes = 0
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._has_slot = False

    def recv(self, size: int) -> bytes:
        """Like `socket.recv`. Raises BodyTooSlow, TooManyBodies, OSError."""
        data = self._recv_in_time(size)
        self._hold(len(data))
        return data

    def _recv_in_time(self, size: int) -> bytes:
        send_timeout_s = self._connection.gettimeout()
        try:
            return self._recv(size)
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {self._timeout_s:g} s", param="body") from None
        finally:
            self._connection.settimeout(send_timeout_s)

    def _recv(self, size: int) -> bytes:
        # A client that sends without a pause must not starve the other greenlets.
        gevent.sleep(0)
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        try:
            self._connection.settimeout(0)
            return self._connection.recv(size)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._take_slot()
        self._connection.settimeout(left_s)
        return self._connection.recv(size)

    def _take_slot(self) -> None:
        if not self._has_slot and not self._slots.acquire(blocking=False):
            raise TooManyBodies(f"this process is at its limit of {AT_ONCE} bodies to wait for; try again later")
        self._has_slot = True

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        self._limits.held_bytes += size
        if self._limits.held_bytes > TOTAL_BYTES:
            raise TooManyBodies(
                f"this process is at its limit of {TOTAL_BYTES} bytes of incomplete bodies; try again later"
            )

    def release(self) -> None:
        """The body is complete, or nobody waits for it any more."""
        self._limits.held_bytes -= self._held_bytes
        self._held_bytes = 0
        if self._has_slot:
            self._has_slot = False
            self._slots.release()

    def linger(self) -> None:
        """Give the client a moment to receive its response before the connection is closed."""
        self.release()
        self._slots = self._limits.lingering
        self._deadline = time.monotonic() + LINGER_S
        shut(self._connection, socket.SHUT_WR)
        with suppress(OSError, BodyTooSlow, TooManyBodies):
            dropped = 0
            while dropped < LINGER_BYTES and (data := self._recv_in_time(_READ_BYTES)):
                dropped += len(data)


class RequestBody(Body):  # type: ignore[misc]
    """`wsgi.input` inside its `with` block. Reading raises InvalidInput, BodyTooSlow, TooManyBodies, OSError."""

    def __init__(self, request: Any, source: BodySource, log: logging.Logger) -> None:
        super().__init__(request.body.reader)
        self._request, self._source, self._log = request, source, log
        self._connection = request.unreader.sock
        self._must_close = request.must_close

    def __enter__(self) -> Self:
        self._request.body, self._request.unreader.sock = self, self._source
        # gunicorn checks this when it writes the response's headers. Reading the body to its end first resets it.
        self._request.must_close = self._must_close or not self._came_with_the_headers
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # gunicorn raises StopIteration once the response is written, if the connection is to be closed.
        if kind is StopIteration and not self._is_over:
            self._source.linger()
        self._source.release()
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
        """Every read by gunicorn's `Body` goes through here."""
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
            self._source.release()
            self._request.must_close = self._must_close
        return data

    def _refuse(self, why: str) -> NoReturn:
        self._log.info("request refused: %s", why)
        raise InvalidInput(why, param="body", code="bad_request") from None
