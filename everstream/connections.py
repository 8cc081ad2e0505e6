"""What is done to a connection beside gunicorn: it is ended, reset, or answered with an error of the server's own."""

import json
import socket
import struct
from contextlib import suppress


def shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Have a greenlet that waits there see the connection's end."""
    with suppress(OSError):
        # gevent's own shutdown raises in that greenlet, as of a file that was closed, and gunicorn would log its stack.
        connection._sock.shutdown(how)  # type: ignore[attr-defined]


def reset(connection: socket.socket) -> None:
    """So that closing drops what the kernel still holds for a client that does not take it."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(connection: socket.socket, status: str, code: str, message: str) -> None:
    """Send an error, after which the connection is to be closed."""
    body = json.dumps({"error": {"code": code, "message": message, "param": None}}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with suppress(OSError):
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
