"""A listener of its own for health checks, in each worker, so that no client of the other one can take their places.

gunicorn's master binds it, before the fork, beside the ordinary one. `worker` makes a `HealthServer` of it, and serves
the connections as all others, but one request each and these `PATHS` only.
"""

import errno
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.server import StreamServer

from everstream.connections import shut

PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
CONNECTIONS = 64
"""Over it the oldest is cut: of these a check is done in no time, and who holds a connection is no check."""
ASKING = 16
"""Requests that wait for Valkey, which may be away. Below the connections, so that they do not crowd out the others."""
DEADLINE_S = 15.0
"""For all of a connection: what asks Valkey is told after 10 s at the latest that it does not answer."""
SPARE_FILES = 8
FILES = 2 * CONNECTIONS + SPARE_FILES


class HealthServer(StreamServer):  # type: ignore[misc]
    """Calls `serve(connection, address)` in a greenlet for each connection."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket, Any], None]) -> None:
        super().__init__(listener, spawn=Pool(2 * CONNECTIONS))
        self._places_for_asking = BoundedSemaphore(ASKING)
        self._serve = serve
        self._open: dict[socket.socket, None] = {}
        self._spare_files: list[io.FileIO] = []
        self._keep_spare_files()

    def handle(self, connection: socket.socket, address: Any) -> None:
        self._open[connection] = None
        if len(self._open) > CONNECTIONS:
            self._cut(next(iter(self._open)))
        deadline = gevent.spawn_later(DEADLINE_S, self._cut, connection)
        try:
            self._serve(connection, address)
        finally:
            deadline.kill(block=False)
            self._open.pop(connection, None)
            # At once: what was just closed would be gone to the next who opens something.
            self._keep_spare_files()

    @contextmanager
    def admitted(self, path: str) -> Iterator[tuple[str, str, str] | None]:
        """Around a request. Yields what it is refused with, as status, code and message, or None."""
        if path not in PATHS:
            yield "404 Not Found", "not_found", f"this port has only {', '.join(sorted(PATHS))}"
        elif path == "/healthz":
            yield None
        elif not self._places_for_asking.acquire(blocking=False):
            yield "503 Service Unavailable", "too_many_requests", f"{ASKING} requests wait for Valkey already"
        else:
            try:
                yield None
            finally:
                self._places_for_asking.release()

    def _cut(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        shut(connection)

    def do_read(self) -> Any:
        """Accept a connection, also where the process can't open another file."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._spare_files:
                raise
        self._spare_files.pop().close()
        try:
            return super().do_read()
        finally:
            # Another worker may have been faster.
            self._keep_spare_files()

    def _keep_spare_files(self) -> None:
        with suppress(OSError):
            while len(self._spare_files) < SPARE_FILES:
                # Not os.open: gevent's os.close closes only later.
                self._spare_files.append(io.FileIO(os.devnull))
