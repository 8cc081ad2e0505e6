"""Coalescing: joins outputs that are close in time into one entry (`flush_ms`).

In: encoded outputs, from `generation_task` in the event loop's thread. Out: the same outputs, some of them joined, to
its writer. A generation's first output, and the first one after a pause, never waits.

Time is divided into beats of `flush_ms`, the same for all generations. The first output in a beat also flushes what was
held in the beat before. So generations that a model advances together flush together, in one append, just when the
model has produced output. Separate clocks would double the number of appends, and make them in the middle of the
model's steps. A timer flushes only what is still held after `flush_ms`.
"""

import asyncio
import math
from collections.abc import Callable

from everstream.log.entries import join_lists, join_outputs

TIMER_S = 0.001
"""Resolution of the event loop's timers."""


class FlushClock:
    """The beats of one `flush_ms`. Flushes coalescers that have held something for too long."""

    def __init__(self, flush_ms: int) -> None:
        self.flush_s = flush_ms / 1000
        self._holding: dict[Coalescer, float] = {}
        """Since when each has held something, oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, coalescer: "Coalescer", now: float) -> None:
        self._holding[coalescer] = now
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(now + self.flush_s, self._flush_late)

    def release(self, coalescer: "Coalescer") -> None:
        del self._holding[coalescer]

    def _flush_late(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        cutoff = loop.time() - self.flush_s + TIMER_S
        for coalescer in [coalescer for coalescer, since in self._holding.items() if since <= cutoff]:
            coalescer.flush()
        if self._holding:
            self._timer = loop.call_at(next(iter(self._holding.values())) + self.flush_s, self._flush_late)


class FlushClocks:
    """One engine's clocks: one for each `flush_ms` in use."""

    def __init__(self) -> None:
        self._clocks: dict[int, FlushClock] = {}

    def of(self, flush_ms: int) -> FlushClock | None:
        """Returns None if outputs are not to be joined."""
        if not flush_ms:
            return None
        if flush_ms not in self._clocks:
            self._clocks[flush_ms] = FlushClock(flush_ms)
        return self._clocks[flush_ms]


class Coalescer:
    """One generation's outputs. They are joined as JSON, without decoding."""

    def __init__(self, clock: FlushClock | None, put: Callable[[bytes, bytes], None], max_output_bytes: int) -> None:
        """`put` takes an output and its resume state. Without a clock everything is passed on at once."""
        self._clock = clock
        self._put = put
        self._max_output_bytes = max_output_bytes
        self._time = asyncio.get_running_loop().time
        self._beat = -math.inf
        """The beat of the last output that could be joined."""
        self._held: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0

    def put(self, output: bytes, resume: bytes, joinable: int) -> None:
        """`joinable` is the one of `Sink.put`. An output that can't be joined follows what is held."""
        if self._clock is None:
            self._put(output, resume)
            return
        if self._held and not (joinable and self._held_bytes + len(output) <= self._max_output_bytes):
            self.flush()
        if not joinable:
            self._put(output, resume)
            return
        now = self._time()
        beat = now // self._clock.flush_s
        is_first, self._beat = beat > self._beat, beat
        if not self._held and is_first:
            self._put(output, resume)
            return
        if not self._held:
            self._clock.hold(self, now)
        self._held.append((output, resume))
        self._held_bytes += len(output)
        if is_first:
            self.flush()

    def flush(self) -> None:
        """Pass on what is held, without waiting for the next beat."""
        if not self._held:
            return
        outputs, resumes = zip(*self._held, strict=True)
        self.discard()
        self._put(*((join_outputs(outputs), join_lists(resumes)) if len(outputs) > 1 else (outputs[0], resumes[0])))

    def discard(self) -> None:
        """Drop what is held."""
        if self._held and self._clock is not None:
            self._held.clear()
            self._held_bytes = 0
            self._clock.release(self)
