"""Reads the service's figures for all viewers of one worker, while it has any. Called by `routes`.

In: viewers. Out: to each, the newest figures as an event. A viewer that is slow misses those in between, so nothing
queues up for it.
"""

import logging
import time
from collections.abc import Callable

import gevent
from gevent.event import Event
from msgspec import Struct
from valkey.exceptions import ValkeyError

from everstream.apis.dashboard.history import History, Point
from everstream.errors import TooManyStreams
from everstream.log.entries import encode_json
from everstream.log.figures import Figures
from everstream.log.retryable import UNAVAILABLE
from everstream.web import sse

logger = logging.getLogger(__name__)

EVERY_S = 1.0
MAX_VIEWERS = 32
"""Of one worker."""


class Away(Struct, frozen=True):
    """The log can't be read, so nothing is known about the service. Figures come again when it can."""

    message: str


class PastPoints(Struct, frozen=True):
    """About one a second, while this process had viewers."""

    points: list[Point]


class Viewer:
    """One open dashboard. It has at most one event to send: the newest."""

    def __init__(self, close: Callable[["Viewer"], None]) -> None:
        self._unsent: bytes | None = None
        self._woken = Event()
        self._left = False
        self._close = close

    def offer(self, event: bytes) -> None:
        self._unsent = event
        self._woken.set()

    def leave(self) -> None:
        """End the stream, because the client left or the worker is draining."""
        self._left = True
        self._woken.set()

    def next(self, heartbeat_s: float) -> bytes | None:
        """Wait for what is to be sent next. None: the stream ends."""
        is_woken = self._woken.wait(heartbeat_s)
        self._woken.clear()
        if self._left:
            return None
        event, self._unsent = self._unsent, None
        return sse.HEARTBEAT if event is None or not is_woken else event

    def close(self) -> None:
        self._close(self)


class Sampler:
    """One per worker. `read` raises ValkeyErrors."""

    def __init__(self, read: Callable[[], Figures], max_log_bytes: int) -> None:
        self._read = read
        self._history = History(max_log_bytes)
        self._viewers: set[Viewer] = set()
        self._is_running = False
        self._newest: bytes | None = None

    def past(self) -> bytes:
        """The points so far, as an event."""
        return sse.event("history", encode_json(PastPoints(self._history.points)))

    def open(self) -> Viewer:
        """Raises TooManyStreams. The viewer must be closed."""
        if len(self._viewers) >= MAX_VIEWERS:
            raise TooManyStreams(f"{MAX_VIEWERS} dashboards are open in this process; try again later")
        viewer = Viewer(self._viewers.discard)
        self._viewers.add(viewer)
        if not self._is_running:
            self._is_running = True
            gevent.spawn(self._run)
        elif self._newest is not None:
            viewer.offer(self._newest)
        return viewer

    def drain(self) -> None:
        for viewer in self._viewers:
            viewer.leave()

    def _run(self) -> None:
        try:
            while self._viewers:
                started = time.monotonic()
                self._newest = self._sample()
                for viewer in self._viewers:
                    viewer.offer(self._newest)
                gevent.sleep(max(0, started + EVERY_S - time.monotonic()))
        finally:
            self._is_running, self._newest = False, None

    def _sample(self) -> bytes:
        try:
            shown = self._history.add(self._read())
        except UNAVAILABLE:
            return _away("Valkey does not answer")
        except ValkeyError as error:
            return _away(f"Valkey refuses to be read: {error}")
        except Exception:
            logger.exception("can't make the dashboard's figures")
            return _away("something went wrong in the server; its log has the details")
        return sse.event("", encode_json(shown))


def _away(message: str) -> bytes:
    return sse.event("away", encode_json(Away(message)))
