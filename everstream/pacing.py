"""Pacing: outputs that come close together become one entry (`flush_ms`).

In: encoded outputs, from `contract.StreamOutputHandler` in the event loop's thread. Out: the same, some of them joined,
to the handler's sink. The first output of a generation, and one that comes after a pause, never waits.

Time is cut into beats of `flush_ms`, the same for all generations. The first output in a beat takes with it what was
held in the one before: so generations that a model advances together also flush together, in one append, and just when
the model has said something. Clocks of their own would make twice the appends, in the midst of the model's steps. Only
what is still held after `flush_ms` is flushed by a timer.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from everstream import log

TEXT_BEFORE, TEXT_AFTER = log.encode_entry(log.TOKEN, {"text": "\n"}).split(b"\\n")
TIMER_S = 0.001
"""How exact the event loop's timers are."""


class Pace:
    """Of all generations with one `flush_ms`: it looks after those that hold something."""

    def __init__(self, flush_ms: int) -> None:
        self.flush_s = flush_ms / 1000
        self._holding: dict[Paced, float] = {}
        """Since when, the longest first."""
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, paced: "Paced", now: float) -> None:
        self._holding[paced] = now
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(now + self.flush_s, self._flush_late)

    def release(self, paced: "Paced") -> None:
        del self._holding[paced]

    def _flush_late(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        late = loop.time() - self.flush_s + TIMER_S
        for paced in [paced for paced, since in self._holding.items() if since <= late]:
            paced.flush()
        if self._holding:
            self._timer = loop.call_at(next(iter(self._holding.values())) + self.flush_s, self._flush_late)


class Paces:
    """Of one engine: one for each `flush_ms` that was asked for."""

    def __init__(self) -> None:
        self._paces: dict[int, Pace] = {}

    def of(self, flush_ms: int) -> Pace | None:
        """None: no pacing."""
        if not flush_ms:
            return None
        return self._paces.setdefault(flush_ms, Pace(flush_ms))


class Paced:
    """One generation's outputs. They are joined as JSON, without being read again."""

    def __init__(self, pace: Pace, put: Callable[[bytes, bytes], None], max_output_bytes: int) -> None:
        self._pace = pace
        self._put = put
        self._max_output_bytes = max_output_bytes
        self._time = asyncio.get_running_loop().time
        self._beat = -math.inf
        """The one of the last output that could be joined."""
        self._held: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0

    def put(self, entry: bytes, resume: bytes, may_join: bool) -> None:
        """`may_join`: it is {"text": …}, and `resume` a list. What can't be joined comes after what is held."""
        if self._held and not (may_join and self._held_bytes + len(entry) <= self._max_output_bytes):
            self.flush()
        if not may_join:
            self._put(entry, resume)
            return
        now = self._time()
        beat = now // self._pace.flush_s
        is_first, self._beat = beat > self._beat, beat
        if not self._held and is_first:
            self._put(entry, resume)
            return
        if not self._held:
            self._pace.hold(self, now)
        self._held.append((entry, resume))
        self._held_bytes += len(entry)
        if is_first:
            self.flush()

    def flush(self) -> None:
        if self._held:
            joined = self._held[0] if len(self._held) == 1 else _join(self._held)
            self.drop()
            self._put(*joined)

    def drop(self) -> None:
        """Say nothing of what is held."""
        if self._held:
            self._held.clear()
            self._held_bytes = 0
            self._pace.release(self)


def _join(held: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    texts = [entry[len(TEXT_BEFORE) : -len(TEXT_AFTER)] for entry, _ in held]
    resumes = [resume[1:-1] for _, resume in held]
    return TEXT_BEFORE + b"".join(texts) + TEXT_AFTER, b"[" + b",".join(resumes) + b"]"
