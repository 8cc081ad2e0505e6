"""Writes to one stream's socket from the greenlet that receives live entries.

A stream's own greenlet waits while its reader is up to date. Waking it for each token would cost more than the token.
So live entries go straight to the socket, as one chunk of the chunked body that gunicorn began. The greenlet wakes only
to send bytes that the kernel did not take, and to end the stream. Made by `streaming`, called by `reader`.
"""

import os
import socket


class DirectWriter:
    """One connection that takes chunks. Use it only while the stream's greenlet waits (`Reader.wait`)."""

    __slots__ = ("_connection", "_fileno", "_unsent")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._fileno = connection.fileno()
        self._unsent = b""

    @property
    def fileno(self) -> int:
        return self._fileno

    @property
    def has_unsent(self) -> bool:
        return self._unsent != b""

    def send(self, chunk: bytes) -> bool:
        """Send what the kernel takes without blocking. False: bytes are left. Raises OSError if the client left."""
        try:
            sent = os.write(self._fileno, chunk)
        except BlockingIOError:
            sent = 0
        if sent == len(chunk):
            return True
        self._unsent = chunk[sent:]
        return False

    def keep(self, unsent: bytes) -> None:
        """What the kernel did not take of a chunk that was sent in another way."""
        self._unsent = unsent

    def send_rest(self) -> None:
        """Send the unsent bytes from the stream's own greenlet, under its send timeout. Raises OSError."""
        rest, self._unsent = self._unsent, b""
        self._connection.sendall(rest)


def http_chunk(body: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(body), body)
