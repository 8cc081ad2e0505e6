"""Group commit: what running generations say, into the log.

In: `Writer.put` and `Writer.end`, without waiting, from the event loop's thread. Out: one `append` call for all that
gathered; while it is under way the next batch gathers. `Writer` is a state machine without I/O. Called by `engine`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from valkey.exceptions import OutOfMemoryError, ValkeyError

from everstream import log
from everstream.engine_log import Batch, EngineLog, until_answered

logger = logging.getLogger(__name__)

OUT_OF_MEMORY_LEASES = 3
"""A Valkey that has no memory for so many times `lease_s` is made to take an end of each generation that waits."""
ENTRY_BYTES = 32
"""Roughly what Valkey needs for an entry beside its bytes."""
HIGH_WATER_BYTES = 1 << 20
"""Of one generation, waiting to be appended: from here on a model that can wait is made to."""


class Writer:
    """One generation's way into the log. Entry numbers are given out here, so there must be one per generation."""

    def __init__(
        self,
        generation: str,
        next_n: int,
        on_refused: Callable[[ValkeyError | None], None],
        mark: Callable[["Writer"], None],
    ) -> None:
        self.generation = generation
        self.closed = False
        self.size_bytes = 0
        """Of all entries so far, the ones that wait included."""
        self.count = next_n - 1
        """Of all entries so far."""
        self.finished = asyncio.Event()
        """Set when the terminal entry is in the log, or this writer was closed."""
        self.has_room = asyncio.Event()
        self.has_room.set()
        self._on_refused = on_refused
        self._gathered: list[tuple[bytes, bytes]] = []
        self._gathered_bytes = 0
        self._final = ""
        self._mark = mark

    @property
    def ended(self) -> bool:
        return self._final != ""

    @property
    def log_bytes(self) -> int:
        """About what the entries take in the log."""
        return self.size_bytes + self.count * ENTRY_BYTES

    def put(self, entry: bytes, resume: bytes = b"") -> None:
        """One encoded entry of model output; `resume` is what the model needs to go on. After the end: nothing."""
        if not self._final:
            self._gather(entry, resume)

    def end(self, state: str, data: object) -> None:
        """The terminal entry: it shares the append of what was put without a wait before it. The first end counts."""
        if not self.ended:
            self._final = state
            self._gather(log.encode_entry(state, data), b"")

    def close(self) -> None:
        """Append nothing more: the generation is another engine's."""
        self.closed = True
        self.finished.set()
        self.has_room.set()

    def _gather(self, entry: bytes, resume: bytes) -> None:
        if not self._gathered:
            self._mark(self)
        size = len(entry) + len(resume)
        self._gathered.append((entry, resume))
        self._gathered_bytes += size
        self.size_bytes += size
        self.count += 1
        if self._gathered_bytes > HIGH_WATER_BYTES:
            self.has_room.clear()

    def take(self) -> Batch:
        """What gathered, to be appended next."""
        entries, self._gathered, self._gathered_bytes = self._gathered, [], 0
        return Batch(self.generation, self.count - len(entries) + 1, entries, self._final, self.log_bytes)

    def settle(self, *, refused: bool, error: ValkeyError | None = None) -> None:
        """What `take` returned was answered. `error` is why it was refused, if not for another engine's entry."""
        self.has_room.set()
        if refused and not self.closed:
            self.close()
            self._on_refused(error)
        elif self.ended and not self._gathered:
            self.finished.set()


class Appender:
    def __init__(self, engine_log: EngineLog, lease_s: float) -> None:
        self._log = engine_log
        self._patience_s = OUT_OF_MEMORY_LEASES * lease_s
        self._dirty: dict[Writer, None] = {}
        self._work = asyncio.Event()

    def writer(self, generation: str, next_n: int, on_refused: Callable[[ValkeyError | None], None]) -> Writer:
        """`on_refused` is called, once, when the log has an entry of another engine's in our place; or with the error
        of a log that can't take this generation's entries."""
        return Writer(generation, next_n, on_refused, self._mark)

    def _mark(self, writer: Writer) -> None:
        self._dirty[writer] = None
        self._work.set()

    async def run(self) -> None:
        """Append for as long as the engine lives."""
        while True:
            await self._work.wait()
            self._work.clear()
            writers, self._dirty = [writer for writer in self._dirty if not writer.closed], {}
            if not writers:
                continue
            batches = [writer.take() for writer in writers]
            try:
                refused: Mapping[str, ValkeyError | None] = dict.fromkeys(await self._append(batches))
            except ValkeyError:
                refused = await self._append_each(batches)
            for writer in writers:
                writer.settle(refused=writer.generation in refused, error=refused.get(writer.generation))

    async def _append_each(self, batches: Sequence[Batch]) -> dict[str, ValkeyError | None]:
        """One of them made the log fail: the others must not fail with it."""
        refused: dict[str, ValkeyError | None] = {}
        for batch in batches:
            try:
                refused |= dict.fromkeys(await self._append([batch]))
            except ValkeyError as error:
                refused[batch.generation] = error
        return refused

    async def _append(self, batches: Sequence[Batch]) -> set[str]:
        """Append until the log has answered: what is generated already waits while Valkey is away. Raises ValkeyErrors
        that waiting does not heal."""
        refused_since = None

        async def append() -> set[str] | None:
            nonlocal refused_since
            try:
                return await self._log.append(batches)
            except OutOfMemoryError:
                refused_since = refused_since or time.monotonic()
                if time.monotonic() - refused_since < self._patience_s:
                    raise
                return None

        refused = await until_answered(append, "an append")
        return await self._give_up(batches) if refused is None else refused

    async def _give_up(self, batches: Sequence[Batch]) -> set[str]:
        """End these generations, for want of memory: they count as refused, so that the model's work is broken off."""
        end = log.encode_entry("failed", {"code": "log_full", "message": "the log (Valkey) is out of memory"})
        ends = [Batch(batch.generation, batch.first, [(end, b"")], "failed") for batch in batches]
        logger.error("Valkey is out of memory: %d generations are given up", len(batches))
        await until_answered(lambda: self._log.append(ends, though_full=True), "the end of generations")
        return {batch.generation for batch in batches}
