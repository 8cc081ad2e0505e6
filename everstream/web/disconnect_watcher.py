"""Detects at once that a client closed its connection.

gunicorn detects it only at the second failed write, which on a quiet stream is two heartbeats later. Here the event
loop itself watches the socket, at about a kilobyte per stream and without a greenlet.
"""

import socket
from collections.abc import Callable

import gevent

from everstream.sockets import unread_bytes

READ = 1


class DisconnectWatcher:
    """From `start` to `stop`, calls `on_close` in the event loop when the peer closes. `on_close` must not block."""

    __slots__ = ("_connection", "_io", "_on_close")

    def __init__(self, connection: socket.socket, on_close: Callable[[], None]) -> None:
        self._connection, self._on_close = connection, on_close
        self._io = gevent.get_hub().loop.io(connection.fileno(), READ)

    def start(self) -> None:
        self._io.start(self._readable)

    def _readable(self) -> None:
        # Readable with no bytes means that the peer closed. Bytes are a pipelined request, which would keep the
        # watcher firing, so stop watching; the second failed write will detect that client's disconnect.
        self._io.stop()
        if unread_bytes(self._connection) == 0:
            self._on_close()

    def stop(self) -> None:
        self._io.stop()
        self._io.close()
