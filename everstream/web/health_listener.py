"""A separate listener for health checks in each worker, so that clients of the main listener can't crowd them out.

gunicorn's master binds it before the fork, beside the main listener. `worker` wraps it in a `HealthServer` and serves
its connections like all others, but with one request each and only for these `PATHS`.
"""

import errno
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.server import StreamServer

from everstream.web.connections import shut
from everstream.web.limits import HEALTH_CONNECTIONS, SPARE_FILES

_is_check = ContextVar("is_check", default=False)
"""Of the connection that is served. Not in the WSGI environment, which a client could pretend to have set."""


def is_check() -> bool:
    """Whether the current request came to this listener."""
    return _is_check.get()


PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
MAX_WAITING = 16
"""Requests that wait for Valkey, which may be down: few enough not to crowd out the others."""
DEADLINE_S = 15.0
"""For a whole connection. A request that needs Valkey learns within 10 s that Valkey does not answer."""


class HealthServer(StreamServer):  # type: ignore[misc]
    """Calls `serve(connection, address)` in a greenlet for each connection."""

    def __init__(self, listener: socket.socket, serve: Callable[[socket.socket, Any], None]) -> None:
        super().__init__(listener, spawn=Pool(2 * HEALTH_CONNECTIONS))
        self._valkey_slots = BoundedSemaphore(MAX_WAITING)
        self._serve = serve
        self._open: dict[socket.socket, None] = {}
        self._spare_files: list[io.FileIO] = []

    def start(self) -> None:
        self._keep_spare_files()
        super().start()

    def handle(self, connection: socket.socket, address: Any) -> None:
        self._open[connection] = None
        if len(self._open) > HEALTH_CONNECTIONS:
            self._cut(next(iter(self._open)))
        deadline = gevent.spawn_later(DEADLINE_S, self._cut, connection)
        _is_check.set(True)
        try:
            self._serve(connection, address)
        finally:
            deadline.kill(block=False)
            self._open.pop(connection, None)
            # Reopen at once, before other code takes the file descriptors that were just freed.
            self._keep_spare_files()

    @contextmanager
    def admitted(self, path: str) -> Iterator[tuple[str, str, str] | None]:
        """Wrap a request. Yields the status, code and message to refuse it with, or None to serve it."""
        if path not in PATHS:
            yield "404 Not Found", "not_found", f"this port serves only {', '.join(sorted(PATHS))}"
        elif path == "/healthz":
            yield None
        elif not self._valkey_slots.acquire(blocking=False):
            yield (
                "503 Service Unavailable",
                "too_many_requests",
                f"{MAX_WAITING} requests already wait for Valkey",
            )
        else:
            try:
                yield None
            finally:
                self._valkey_slots.release()

    def _cut(self, connection: socket.socket) -> None:
        self._open.pop(connection, None)
        shut(connection)

    def do_read(self) -> Any:
        """Accept a connection even if the process is out of file descriptors."""
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._spare_files:
                raise
        self._spare_files.pop().close()
        try:
            return super().do_read()
        finally:
            # If another worker accepted the connection first, the descriptor is free again.
            self._keep_spare_files()

    def _keep_spare_files(self) -> None:
        with suppress(OSError):
            while len(self._spare_files) < SPARE_FILES:
                # Not os.open: gevent's os.close defers the close.
                self._spare_files.append(io.FileIO(os.devnull))
