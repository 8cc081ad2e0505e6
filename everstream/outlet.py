"""The socket of one stream, written to from the greenlet that hears what is appended.

A stream's own greenlet waits while its reader has all there is. To wake it for each token would cost more than the
token: so what is heard goes straight to the socket, as one chunk of the chunked body that gunicorn began, and the
greenlet is woken only for what the kernel did not take, and for the end. Called by `follower`; made by `streaming`.
"""

import os
import socket


class Outlet:
    """One connection that takes chunks. Only while its greenlet waits in `follow`: else two would write at once."""

    __slots__ = ("_connection", "_fileno", "_unsent")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._fileno = connection.fileno()
        self._unsent = b""

    @property
    def has_unsent(self) -> bool:
        return self._unsent != b""

    def send(self, chunk: bytes) -> bool:
        """Give the kernel what it takes, without a wait. False: there is a rest. Raises OSError: the client left."""
        try:
            sent = os.write(self._fileno, chunk)
        except BlockingIOError:
            sent = 0
        if sent == len(chunk):
            return True
        self._unsent = chunk[sent:]
        return False

    def send_rest(self) -> None:
        """In the stream's own greenlet, under its send timeout. Raises OSError."""
        rest, self._unsent = self._unsent, b""
        self._connection.sendall(rest)


def chunk(body: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)
