"""One connection of a stream, for the sync client: it can be cut from another thread, and is cut when it is silent."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx

from everstream.client.errors import Unavailable
from everstream.client.transport import stop_read_timeout


class Link:
    """Read by one thread. `silent_since`: when it began to wait for bytes; None: it does not wait."""

    def __init__(self, response: httpx.Response) -> None:
        self.silent_since: float | None = None
        self.silence_s: float | None = None
        self._response = response
        self._chunks: Iterator[bytes] | None = None

    def read(self) -> bytes:
        """The next bytes. Raises Unavailable at the end, as only a terminal event ends a stream properly."""
        if self._chunks is None:
            stop_read_timeout(self._response)
            self._chunks = self._response.iter_bytes()
        self.silent_since = time.monotonic()
        try:
            return next(self._chunks)
        except StopIteration:
            raise Unavailable("connection_lost", "the stream ended before the answer") from None
        finally:
            self.silent_since = None

    def cut(self) -> None:
        """Make the read that waits, and all others, fail."""
        stream = self._response.extensions.get("network_stream")
        found = stream.get_extra_info("socket") if stream is not None else None
        if isinstance(found, socket.socket):
            # Not an SSLSocket's own method, which takes away what the reading thread uses.
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()


class Watchdog:
    """Cuts links that are silent for longer than their `silence_s`. Its one thread runs while there are any to watch.

    Needed because httpx takes a read timeout before the first byte, and only the first ping tells it.
    """

    def __init__(self) -> None:
        self._links: set[Link] = set()
        self._changed = threading.Condition()
        self._is_running = False

    def watch(self, link: Link, silence_s: float) -> None:
        with self._changed:
            link.silence_s = silence_s
            self._links.add(link)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="everstream-watchdog", daemon=True).start()
            self._changed.notify()

    def forget(self, link: Link) -> None:
        with self._changed:
            self._links.discard(link)
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._links:
                now = time.monotonic()
                # Those that don't wait now may begin to at any time.
                self._changed.wait(max(min(self._check(link, now) for link in list(self._links)), 0.0))
            self._is_running = False

    def _check(self, link: Link, now: float) -> float:
        """Cut it if it is overdue. Returns after how long to look again."""
        limit = link.silence_s or 0.0
        since = link.silent_since
        left = limit if since is None else since + limit - now
        if left <= 0:
            self._links.discard(link)
            link.cut()
        return left
