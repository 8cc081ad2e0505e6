"""What the kernel knows about a socket."""

import fcntl
import socket
import struct
import termios


def unread_bytes(connection: socket.socket) -> int:
    """How many bytes have come that nobody has read; 0 if the socket is closed."""
    try:
        packed = fcntl.ioctl(connection.fileno(), termios.FIONREAD, struct.pack("i", 0))
    except OSError:
        return 0
    count: int = struct.unpack("i", packed)[0]
    return count
