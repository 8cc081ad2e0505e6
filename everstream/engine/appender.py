"""Group commit: appends the output of running generations to the log.

In: `Writer.put` and `Writer.end`, which never block, from the event loop's thread. Out: one `append` call for all that
has gathered; while it is in flight the next batch gathers. `Writer` is a state machine without I/O. Called by `engine`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from valkey.exceptions import OutOfMemoryError, ValkeyError

from everstream.log.engine_log import EMPTY, Batch, EngineLog, History, until_answered
from everstream.log.entries import LINE, encode_entry, encode_live
from everstream.log.histograms import Histogram

logger = logging.getLogger(__name__)

OUT_OF_MEMORY_LEASES = 3
"""After this many leases of OOM, force-write a terminal entry for each waiting generation."""
ENTRY_BYTES = 32
"""About what an entry takes besides its own bytes: the rest of its line, and the memory that Valkey holds ready for a
string that grows."""
HIGH_WATER_BYTES = 1 << 20
"""Backpressure: with more unappended bytes of one generation than this, a model that can wait has to."""


class Writer:
    """One generation's way into the log. It assigns entry numbers, so there must be only one per generation."""

    def __init__(
        self,
        generation: str,
        mark: Callable[["Writer"], None],
        on_refused: Callable[[ValkeyError | None], None],
        history: History = EMPTY,
    ) -> None:
        self.generation = generation
        self.closed = False
        self.size_bytes = sum(len(entry.data) + len(entry.resume) for entry in history.entries)
        """Of all entries so far, including unappended ones."""
        self.code = ""
        """Of the failure that ended it."""
        self.tokens = 0
        """Of the whole generation, as far as its task has noted them."""
        self.count = len(history.entries)
        """Number of entries so far, including unappended ones."""
        self.finished = asyncio.Event()
        """Set when the terminal entry is in the log, or this writer is closed."""
        self.writable = asyncio.Event()
        self.writable.set()
        self._on_refused = on_refused
        self._length = history.length
        """Of the log in bytes, with what was taken."""
        self._name = generation.encode()
        self._gathered: list[bytes] = []
        """Entries; `_lines` are theirs."""
        self._lines: list[bytes] = []
        self._gathered_bytes = 0
        self._final = ""
        self._mark = mark

    @property
    def state(self) -> str:
        """That of its terminal entry; empty: it has none, or the log has refused it."""
        return "" if self.closed else self._final

    @property
    def ended(self) -> bool:
        return self._final != ""

    @property
    def log_bytes(self) -> int:
        """Approximate size of the entries in the log."""
        return self.size_bytes + self.count * ENTRY_BYTES

    def put(self, entry: bytes, resume: bytes = b"") -> None:
        """Add one encoded entry of model output; `resume` is what the model needs to resume. Ignored after the end."""
        if not self._final:
            self._gather(entry, resume)

    def end(self, state: str, data: object) -> None:
        """Add the terminal entry, in the same append as what was put since the last await. The first end counts."""
        if not self.ended:
            self._final = state
            self.code = str(data.get("code", "")) if isinstance(data, dict) else ""
            self._gather(encode_entry(state, data), b"")

    def note_tokens(self, tokens: int) -> None:
        """How many the generation has so far."""
        self.tokens = tokens

    def close(self) -> None:
        """Append nothing more: another engine has the generation."""
        self.closed = True
        self.finished.set()
        self.writable.set()

    def _gather(self, entry: bytes, resume: bytes) -> None:
        if not self._gathered:
            self._mark(self)
        self.count += 1
        self._gathered.append(entry)
        self._lines.append(LINE % (entry, resume, self.count))
        size = len(entry) + len(resume)
        self.size_bytes += size
        self._gathered_bytes += size
        if self._gathered_bytes > HIGH_WATER_BYTES:
            self.writable.clear()

    def take(self) -> Batch:
        """Take the gathered entries, for the next append."""
        entries, lines = self._gathered, b"".join(self._lines)
        self._gathered, self._lines, self._gathered_bytes = [], [], 0
        self._length += len(lines)
        first = self.count - len(entries) + 1
        live = encode_live(self._name, first, entries)
        if not self._final:
            return Batch(self.generation, first, live, lines, self._length)
        return Batch(self.generation, first, live, lines, self._length, self._final, self.log_bytes, self.tokens)

    def settle(self) -> None:
        """What `take` returned is in the log."""
        self.writable.set()
        if self._final and not self._gathered:
            self.finished.set()

    def refuse(self, error: ValkeyError | None = None) -> None:
        """The log has refused it. `error`: why, if not for another engine's entry."""
        if not self.closed:
            self.close()
            self._on_refused(error)


class Appender:
    def __init__(self, engine_log: EngineLog, lease_s: float, times: Histogram) -> None:
        """`times`: how long the appends take."""
        self._log = engine_log
        self._times = times
        self._patience_s = OUT_OF_MEMORY_LEASES * lease_s
        self._dirty: dict[Writer, None] = {}
        self._work = asyncio.Event()

    def open_writer(
        self, generation: str, history: History, *, on_refused: Callable[[ValkeyError | None], None]
    ) -> Writer:
        """`on_refused` is called once: with None if another engine's entry is in our place, or with the error if the
        log can't take this generation's entries."""
        return Writer(generation, self._mark, on_refused, history)

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
                if refused and writer.generation in refused:
                    writer.refuse(refused[writer.generation])
                else:
                    writer.settle()

    async def _append_each(self, batches: Sequence[Batch]) -> dict[str, ValkeyError | None]:
        """One batch made the append fail. Append each separately, so that the others don't fail with it."""
        refused: dict[str, ValkeyError | None] = {}
        for batch in batches:
            try:
                refused |= dict.fromkeys(await self._append([batch]))
            except ValkeyError as error:
                refused[batch.generation] = error
        return refused

    async def _append(self, batches: Sequence[Batch]) -> set[str]:
        """Append until the log answers: generated output waits while Valkey is away. Raises ValkeyErrors that waiting
        does not cure."""
        oom_since = None

        async def append() -> set[str] | None:
            nonlocal oom_since
            started = time.monotonic()
            try:
                refused = await self._log.append(batches)
                self._times.add(time.monotonic() - started)
                return refused
            except OutOfMemoryError:
                oom_since = oom_since or time.monotonic()
                if time.monotonic() - oom_since < self._patience_s:
                    raise
                return None

        refused = await until_answered(append, "an append")
        return await self._give_up(batches) if refused is None else refused

    async def _give_up(self, batches: Sequence[Batch]) -> set[str]:
        """End these generations: Valkey is out of memory. They count as refused, so the model's work is cancelled."""
        end = encode_entry("failed", {"code": "log_full", "message": "the log (Valkey) is out of memory"})
        ends = [_ended_by(batch, end) for batch in batches]
        logger.error("Valkey is out of memory: giving up %d generations", len(batches))
        await until_answered(lambda: self._log.append(ends, though_full=True), "the final append")
        return {batch.generation for batch in batches}


def _ended_by(batch: Batch, end: bytes) -> Batch:
    """A terminal entry in the place of these."""
    line = LINE % (end, b"", batch.first)
    length = batch.length - len(batch.lines) + len(line)
    live = encode_live(batch.generation.encode(), batch.first, [end])
    return Batch(batch.generation, batch.first, live, line, length, "failed")
