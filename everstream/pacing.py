"""Pacing: outputs that come close together become one entry (`flush_ms`).

In: encoded outputs, from `contract.StreamOutputHandler` in the event loop's thread. Out: the same, some of them joined,
to the handler's sink. The first output of a generation, and one that comes after a pause, never waits.
"""

import asyncio
import math
from collections.abc import Callable, Sequence

from everstream import log

TEXT_BEFORE, TEXT_AFTER = log.encode_entry(log.TOKEN, {"text": "\n"}).split(b"\\n")


class Pace:
    """The beat of all generations with one `flush_ms`: what they hold goes in one instant, and so in one append."""

    def __init__(self, flush_ms: int) -> None:
        self.flush_s = flush_ms / 1000
        self._waiting: list[Callable[[], None]] = []

    def call_at_beat(self, flush: Callable[[], None]) -> None:
        if not self._waiting:
            loop = asyncio.get_running_loop()
            loop.call_at((loop.time() // self.flush_s + 1) * self.flush_s, self._beat)
        self._waiting.append(flush)

    def _beat(self) -> None:
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            flush()


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
    """One generation's outputs, held until the next beat. They are joined as JSON, without being read again."""

    def __init__(self, pace: Pace, put: Callable[[bytes, bytes], None], max_output_bytes: int) -> None:
        self._pace = pace
        self._put = put
        self._max_output_bytes = max_output_bytes
        self._time = asyncio.get_running_loop().time
        self._flushed_at = -math.inf
        self._held: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0

    def put(self, entry: bytes, resume: bytes, may_join: bool) -> None:
        """`may_join`: it is {"text": …}, and `resume` a list. What can't be joined comes after what is held."""
        held = self._held
        if held and not (may_join and self._held_bytes + len(entry) <= self._max_output_bytes):
            self.flush()
        if may_join and (held or self._time() < self._flushed_at + self._pace.flush_s):
            if not held:
                self._pace.call_at_beat(self.flush)
            held.append((entry, resume))
            self._held_bytes += len(entry)
        else:
            self._flushed_at = self._time()
            self._put(entry, resume)

    def flush(self) -> None:
        if not self._held:
            return
        joined = self._held[0] if len(self._held) == 1 else _join(self._held)
        self.drop()
        self._flushed_at = self._time()
        self._put(*joined)

    def drop(self) -> None:
        """Say nothing of what is held."""
        self._held.clear()
        self._held_bytes = 0


def _join(held: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    texts = [entry[len(TEXT_BEFORE) : -len(TEXT_AFTER)] for entry, _ in held]
    resumes = [resume[1:-1] for _, resume in held]
    return TEXT_BEFORE + b"".join(texts) + TEXT_AFTER, b"[" + b",".join(resumes) + b"]"
