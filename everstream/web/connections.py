"""Socket operations that bypass gunicorn: shut down, reset, or answer with one of the server's own errors."""

import json
import socket
import struct
from contextlib import suppress
from weakref import WeakSet

_unread: WeakSet[socket.socket] = WeakSet()


def stop_reading(connection: socket.socket) -> None:
    """Make a greenlet that waits for a request see the connection's end. A request that has arrived is still read."""
    _unread.add(connection)
    shut(connection, socket.SHUT_RD)


def shows_leaving(connection: socket.socket) -> bool:
    """Whether the end of what arrives says that the client left. It would not, if it is we who stopped reading."""
    return connection not in _unread


def shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Make a greenlet that waits on the connection see its end."""
    with suppress(OSError):
        # gevent's own shutdown raises in that greenlet as if the file were closed; gunicorn would log the traceback.
        connection._sock.shutdown(how)  # type: ignore[attr-defined]


def reset(connection: socket.socket) -> None:
    """Make closing discard what the kernel still buffers for a client that does not read."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(connection: socket.socket, status: str, code: str, message: str) -> None:
    """Send an error response. The caller must then close the connection."""
    body = json.dumps({"error": {"code": code, "message": message, "param": None}}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with suppress(OSError):
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
