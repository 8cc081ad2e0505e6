"""A DNS server for nginx's `resolver`: it answers for any name with one address, which a test can change."""

import socket
import struct
import threading
from contextlib import contextmanager

A_RECORD = 1
HEADER_BYTES = 12
RESPONSE, NXDOMAIN = 0x8180, 0x8183
QUESTION_NAME_POINTER = b"\xc0\x0c"


class NameServer:
    """With `address` None it answers NXDOMAIN."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        return self._socket.getsockname()[1]

    def serve(self) -> None:
        """Answer queries until `stop` is called."""
        while True:
            query, client = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", HEADER_BYTES) + 5
        (record_type,) = struct.unpack("!H", query[end - 4 : end - 2])
        found = self.address is not None and record_type == A_RECORD
        flags = NXDOMAIN if self.address is None else RESPONSE
        answer = query[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0) + query[HEADER_BYTES:end]
        if found:
            record = struct.pack("!HHIH", A_RECORD, 1, 1, 4)
            answer += QUESTION_NAME_POINTER + record + socket.inet_aton(self.address)
        return answer

    def stop(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())

    def close(self) -> None:
        self._socket.close()


@contextmanager
def name_server(address):
    names = NameServer(address)
    thread = threading.Thread(target=names.serve)
    thread.start()
    try:
        yield names
    finally:
        names.stop()
        thread.join()
        names.close()
