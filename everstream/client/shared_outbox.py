"""An `Outbox` for several threads, and for signal handlers, which may publish in the middle of what their own thread
does with it. Used by `sender`.

In a `with changed` the lock is held, also by a handler that interrupts its thread there. So whoever uses the outbox
notes that it does; what a handler publishes meanwhile is put down, and taken by the code that it had interrupted.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from everstream.client.errors import EverstreamError
from everstream.client.outbox import Batch, Body, Outbox, Stats


class SharedOutbox:
    """`changed` is notified of whatever may end a wait."""

    def __init__(self, outbox: Outbox) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._outbox = outbox
        self._put_down: deque[tuple[str, Body, float]] = deque()
        self._is_used = False
        self._is_reporting = False

    def add(self, topic: str, body: Body, due: float) -> None:
        """See `Outbox.add`."""
        self._outbox.check(body)
        with self.changed:
            self._put_down.append((topic, body, due))
            self._take_put_down()
            self.changed.notify_all()

    @property
    def stats(self) -> Stats:
        with self._used() as outbox:
            return outbox.stats

    def has_room(self) -> bool:
        with self._used() as outbox:
            return outbox.has_room()

    def is_sent(self, target: int) -> bool:
        """Whether nothing waits of the first so many messages, and warnings about them are in the log."""
        with self._used() as outbox:
            return outbox.oldest() >= target and not self._is_reporting and not outbox.warnings

    def next(self, now: float) -> Batch | float | None:
        with self._used() as outbox:
            return outbox.next(now)

    def settle(self, batch: Batch, error: EverstreamError | None, now: float) -> float | None:
        with self._used() as outbox:
            delay = outbox.settle(batch, error, now)
        with self.changed:
            self.changed.notify_all()
        return delay

    @contextmanager
    def warnings(self) -> Iterator[list[str]]:
        """Those that were not reported yet: in the body they are."""
        with self._used() as outbox:
            found = list(outbox.warnings)
            outbox.warnings.clear()
            self._is_reporting = self._is_reporting or bool(found)
        try:
            yield found
        finally:
            if found:
                with self.changed:
                    self._is_reporting = False
                    self.changed.notify_all()

    @contextmanager
    def _used(self) -> Iterator[Outbox]:
        with self.changed:
            before, self._is_used = self._is_used, True
            try:
                yield self._outbox
            finally:
                self._is_used = before
                self._take_put_down()

    def _take_put_down(self) -> None:
        # In a loop: a handler may put something down after the last look, and before `_is_used` is False.
        while self._put_down and not self._is_used:
            self._is_used = True
            try:
                self._outbox.add(*self._put_down.popleft())
            finally:
                self._is_used = False
