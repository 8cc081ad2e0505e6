"""Socket operations that bypass gunicorn: shut down, reset, or answer with one of the server's own errors."""

import json
import socket
import struct
from contextlib import suppress
from weakref import WeakSet

PROBES = 3
_shut_for_reading: WeakSet[socket.socket] = WeakSet()


def stop_reading(connection: socket.socket) -> None:
    """Make a greenlet that waits for a request see the connection's end. A request that has arrived is still read."""
    _shut_for_reading.add(connection)
    shut(connection, socket.SHUT_RD)


def is_shut_for_reading(connection: socket.socket) -> bool:
    """Whether we shut the reading side, so that its end does not mean that the client left."""
    return connection in _shut_for_reading


def shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Make a greenlet that waits on the connection see its end."""
    with suppress(OSError):
        # gevent's own shutdown raises in that greenlet as if the file were closed; gunicorn would log the traceback.
        connection._sock.shutdown(how)  # type: ignore[attr-defined]


def notice_vanished_peer(connection: socket.socket, after_s: float) -> None:
    """Have the kernel close the connection if its peer acknowledges nothing for `after_s`, or sends no sign of life for
    twice as long. By default it would try for a quarter of an hour to send what is unsent, and wait forever if nothing
    is."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(after_s * 1000))
    probe_s = max(1, int(after_s / PROBES))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(after_s)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)


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
