"""How far a job is, as messages of a topic; in place of tqdm. See `Progress`."""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from operator import index, length_hint
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from everstream.client.messages import checked_topic, clean, encoded
from everstream.client.publisher import Publisher
from everstream.client.publishing import default_publisher

T = TypeVar("T")
EVERY_S = 0.1
RUNNING, DONE, FAILED = "running", "done", "failed"


class Progress(Generic[T]):
    """Publishes `{"done", "total", "text", "state", "rate", "elapsed_s"}` to a topic, at most every `every_s`, and
    always the last one. While the service is away, only the newest one waits.

        for item in progress("job-42", items): ...

        with progress("job-42", total=100) as job:
            job.update(10)

        download(url, callback=progress("job-42"))

    `state` is `failed` after an exception, and after a loop that was left early: a loop can't see why, so call
    `finish` before a `break` that is meant. A callback is `done` when it has reached its total.
    """

    def __init__(  # noqa: PLR0913 - options with defaults, by keyword
        self,
        topic: str,
        items: Iterable[T] = (),
        total: int | float | None = None,
        *,
        text: str = "",
        every_s: float = EVERY_S,
        publisher: Publisher | None = None,
    ) -> None:
        """`total`: by default, how many items there are, if they know it. Raises ValueError."""
        self._topic = checked_topic(topic)
        self._items = items
        self._total = _total(total if total is not None else length_hint(items, 0) or None)
        self._text = text
        self._every_s = every_s
        self._publisher = publisher or default_publisher()
        # Re-entrant, for signal handlers.
        self._lock = threading.RLock()
        self._done: int | float = 0
        self._error = ""
        self._state = RUNNING
        self._began_at = time.monotonic()
        self._due = 0.0
        self._scheduled_by = ""

    def update(self, n: int | float = 1, text: str | None = None) -> None:
        """So much more is done."""
        with self._lock:
            self._done = _number(self._done + n)
            self._text = self._text if text is None else text
        self._schedule()

    def set(self, done: int | float, total: int | float | None = None, text: str | None = None) -> None:
        """So much is done."""
        with self._lock:
            self._done = _number(done)
            self._total = self._total if total is None else _total(total)
            self._text = self._text if text is None else text
        self._schedule()

    def __call__(self, done: int | float, total: int | float | None = None) -> None:
        """The same, for a library that wants a callback."""
        self.set(done, total)
        if self._total and done >= self._total:
            self.finish()

    def finish(self, text: str | None = None) -> None:
        """All is done that has to be."""
        self._end(DONE, text)

    def fail(self, error: str = "") -> None:
        self._error = self._error or error
        self._end(FAILED, None)

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> Self:
        self._schedule()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.fail("" if kind is GeneratorExit else f"{type(error).__name__}: {error}")

    def _end(self, state: str, text: str | None) -> None:
        with self._lock:
            if self._state != RUNNING:
                return
            self._state = state
            self._text = self._text if text is None else text
        self._schedule(is_last=True)

    def _schedule(self, *, is_last: bool = False) -> None:
        """Have the state published, as it will be by then, unless that is arranged already."""
        producer = self._publisher.producer
        with self._lock:
            # A forked child has another producer, and nothing of what its parent has arranged.
            if self._scheduled_by == producer or (self._state != RUNNING and not is_last):
                return
            self._scheduled_by = producer
            self._due = due = max(time.monotonic(), self._due + self._every_s)
        # Without the lock, which `_take` needs while the publisher's is held.
        self._publisher.publish_later(self._topic, self._take, due)

    def _take(self) -> bytes:
        """The message, as the publisher sends it."""
        with self._lock:
            self._scheduled_by = ""
            return encoded(self._snapshot(), None, None, None)

    def _snapshot(self) -> dict[str, Any]:
        elapsed_s = time.monotonic() - self._began_at
        found = {"done": self._done, "total": self._total, "text": clean(self._text), "state": self._state}
        found |= {"rate": round(self._done / max(elapsed_s, 1e-3), 3), "elapsed_s": round(elapsed_s, 3)}
        return found | ({"error": clean(self._error)} if self._error else {})


def _number(value: Any) -> int | float:
    """As JSON takes it, also of a numpy type. Raises ValueError, TypeError."""
    try:
        return index(value)
    except TypeError:
        number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"progress must be finite, not {value!r}")
    return number


def _total(value: Any) -> int | float | None:
    return None if value is None or value == math.inf else _number(value)


progress = Progress
"""As tqdm is written: `for item in progress("job-42", items)`."""
