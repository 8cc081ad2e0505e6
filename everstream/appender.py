"""Group commit: what running generations say, into the log.

In: `Writer.put` and `Writer.end`, without waiting, from the event loop's thread. Out: one `append` call for all that
gathered; while it is under way the next batch gathers. Called by `engine`.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from valkey.exceptions import ResponseError

from everstream import log
from everstream.engine_log import UNREACHABLE, Batch, EngineLog

logger = logging.getLogger(__name__)

RETRY_S = 0.2


class Writer:
    """One generation's way into the log. Entry numbers are given out here, so there must be one per generation."""

    def __init__(
        self, generation: str, next_n: int, on_refused: Callable[[], None], mark: Callable[["Writer"], None]
    ) -> None:
        self.generation = generation
        self.closed = False
        self.finished = asyncio.Event()
        """Set when the terminal entry is in the log, or this writer was closed."""
        self._on_refused = on_refused
        self._next_n = next_n
        self._gathered: list[tuple[str, str]] = []
        self._final = ""
        self._mark = mark

    @property
    def ended(self) -> bool:
        return self._final != ""

    def put(self, data: Any, resume: Any = None) -> None:
        """One entry of model output; `resume` is what the model needs to go on from here. After the end: nothing."""
        if not self.ended:
            self._gather(log.TOKEN, data, resume)

    def end(self, state: str, data: Any) -> None:
        """The terminal entry: it shares the append of what was put without a wait before it. The first end counts."""
        if not self.ended:
            self._final = state
            self._gather(state, data, None)

    def close(self) -> None:
        """Append nothing more: the generation is another engine's."""
        self.closed = True
        self.finished.set()

    def _gather(self, event: str, data: Any, resume: Any) -> None:
        self._gathered.append((log.encode_entry(event, data), "" if resume is None else log.encode_json(resume)))
        self._mark(self)

    def take(self) -> Batch:
        entries, self._gathered = self._gathered, []
        first, self._next_n = self._next_n, self._next_n + len(entries)
        return Batch(self.generation, first, entries, self._final)

    def settle(self, *, refused: bool) -> None:
        """What `take` returned was answered."""
        if refused and not self.closed:
            self.close()
            self._on_refused()
        elif self.ended and not self._gathered:
            self.finished.set()


class Appender:
    def __init__(self, engine_log: EngineLog) -> None:
        self._log = engine_log
        self._dirty: dict[Writer, None] = {}
        self._work = asyncio.Event()

    def writer(self, generation: str, next_n: int, on_refused: Callable[[], None]) -> Writer:
        """`on_refused` is called, once, when the log has an entry of another engine's in our place."""
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
            refused = await self._append([writer.take() for writer in writers])
            for writer in writers:
                writer.settle(refused=writer.generation in refused)

    async def _append(self, batches: list[Batch]) -> set[str]:
        """Append until the log has answered: what is generated already waits while Valkey is away."""
        while True:
            try:
                return await self._log.append(batches)
            except (*UNREACHABLE, ResponseError) as error:
                logger.warning("the log takes no entries, trying again: %s", error)
                await asyncio.sleep(RETRY_S)
