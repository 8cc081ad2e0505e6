"""One generation under way in an engine: take it up where the log stands, run the model, end it once.

In: a claim. Out: entries, through an `appender.Writer`. Made and tended by `engine`; it is the sink of the model's
`StreamOutputHandler`.
"""

import asyncio
import itertools
import logging
from functools import partial
from typing import Any

import msgspec
from valkey.exceptions import ValkeyError

from everstream import contract, log
from everstream.appender import Appender, Writer
from everstream.engine_log import Batch, Claim, EngineLog, until_answered
from everstream.errors import EverstreamError, LogBroken, ModelDied
from everstream.pacing import Paces
from everstream.settings import Settings

logger = logging.getLogger(__name__)

MAX_DEATHS_IN_A_ROW = 3
MAX_DEATHS_ON_TRIAL = 2
"""A generation under way at so many engine deaths without an output between them, and at so many of these alone on
trial, is taken for their cause."""
MAX_DEATHS = 10
"""The same, outputs or not: what kills after every few tokens can't take the service down for long either."""


class Means(msgspec.Struct, frozen=True):
    """What all generations of one engine share. `trial` is held by one that may be what kills engines."""

    settings: Settings
    model: Any
    log: EngineLog
    appender: Appender
    trial: asyncio.Lock
    paces: Paces


class Deaths(msgspec.Struct, frozen=True):
    """Of engines, with this generation under way: in all, since its last output, and on trial since then."""

    in_all: int
    in_a_row: int
    on_trial: int

    @property
    def are_too_many(self) -> bool:
        in_a_row = self.in_a_row >= MAX_DEATHS_IN_A_ROW and self.on_trial >= MAX_DEATHS_ON_TRIAL
        return in_a_row or self.in_all >= MAX_DEATHS


class Fence(msgspec.Struct, frozen=True):
    """What an entry of an engine's own carries beside what readers see. `engine` tells two engines' entries apart."""

    engine: str
    on_trial: bool = False


class Running:
    """`task` ends when the generation's end is in the log, or another engine has it. ModelDied passes through, and the
    ValkeyError of a log that does not even take that end."""

    def __init__(self, claim: Claim, means: Means, *, alone: bool) -> None:
        self.claim = claim
        self._means = means
        self._alone = alone
        self._max_bytes = means.settings.max_generation_bytes
        self._end: tuple[str, dict[str, Any]] | None = None
        self._log_error: ValkeyError | None = None
        self._on_trial = False
        self._writer: Writer | None = None
        self._handler: contract.StreamOutputHandler | None = None
        self.has_room = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=claim.generation)

    @property
    def ended(self) -> bool:
        return self._writer is not None and self._writer.ended

    @property
    def log_bytes(self) -> int:
        """About what its entries take in the log; 0: not known yet."""
        return self._writer.log_bytes if self._writer else 0

    def break_off(self, state: str, data: dict[str, Any]) -> None:
        """Stop the model's work and end the generation with this terminal entry. The first end counts."""
        if self._end is None and self._log_error is None and not self.ended:
            self._end = state, data
            self.cancel()

    def fail(self, why: str) -> None:
        """The log can't take its entries any more."""
        if self._writer is not None:
            self._writer.close()
        self._on_refused(ValkeyError(why))

    def abandon(self, why: str) -> None:
        """Another engine has it: say nothing more."""
        if self._writer is not None:
            self._writer.close()
        logger.warning("generation %s is given up: %s", self.claim.generation[:8], why)
        self.cancel()

    def cancel(self) -> None:
        """Stop the model's work."""
        if self._handler is not None:
            self._handler.stop()
        self.task.cancel()

    async def _run(self) -> None:
        try:
            history = await self._take_up() if self.claim.taken_over else []
            if history is None:
                return
            if self._end is not None:
                # valkey-py may have lost the cancellation (`Engine.run`).
                raise asyncio.CancelledError
            self._writer = self._open_writer(history)
            await self._infer(self._writer, history)
        except asyncio.CancelledError:
            if self._end is None and self._log_error is None:
                raise
            # The cancellation was ours and has done its work; this task still has an entry to write.
            _uncancel()
            if self._end is not None:
                await self._write_end(*self._end)
            if self._log_error is not None:
                await self._fail(self._log_error)
        except ModelDied:
            raise
        except Exception as error:
            await self._fail(error)
        finally:
            self._leave_trial()

    async def _fail(self, error: Exception) -> None:
        """The way into the log is broken, for this generation at least: end it another way."""
        if self._writer is not None:
            self._writer.close()
        is_log_error = isinstance(error, ValkeyError)
        what = f"the log (Valkey) refuses it: {error}" if is_log_error else "something went wrong in the engine"
        logger.error("generation %s: %s", self.claim.generation[:8], what, exc_info=None if is_log_error else error)
        kind = LogBroken if is_log_error else EverstreamError
        await until_answered(partial(self._means.log.fail, self.claim, kind.code, what))

    async def _take_up(self) -> list[log.Entry] | None:
        """Fence off the engine that had this generation. Returns what was delivered; None if nothing is left to do.

        The fence is an entry of our own, `resumed`: once it is in the log, the next append of an engine that only
        slept is refused, as its number is taken. It carries our name, so that two engines can't both think it theirs.
        """
        deaths = count_deaths(await self._history())
        if deaths.are_too_many:
            message = f"the engine died {deaths.in_all} times while it worked on this generation"
            await self._enter("failed", {"code": "engine_crashed", "message": message})
            return None
        if self._alone or deaths.in_a_row > 1:
            # It may be what kills engines, or only have run beside it. Such ones are taken up one by one, each when the
            # one before has said something or has run for a while, so that a death tells who it was.
            await self._means.trial.acquire()
            self._on_trial = True
            asyncio.get_running_loop().call_later(self._means.settings.lease_s, self._leave_trial)
        return await self._enter("resumed", {"attempt": deaths.in_all + 1})

    async def _enter(self, event: str, data: dict[str, Any]) -> list[log.Entry] | None:
        """Append an entry of our own wherever the log stands. Returns the log up to it; None if that has an end."""
        generation = self.claim.generation
        while True:
            history = await self._history()
            if history and history[-1].is_terminal:
                return None
            fence = Fence(self._means.log.consumer, self._on_trial)
            entry = log.encode_entry(event, data), log.encode_json(fence)
            state = event if event in log.TERMINAL else ""
            batch = Batch(generation, len(history) + 1, [entry], state)
            if not await until_answered(partial(self._means.log.append, [batch])):
                logger.info("generation %s taken over: %s %s", generation[:8], event, data)
                return await self._history()

    async def _history(self) -> list[log.Entry]:
        return await until_answered(lambda: self._means.log.history(self.claim.generation))

    def _open_writer(self, history: list[log.Entry]) -> Writer:
        writer = self._means.appender.writer(self.claim.generation, len(history) + 1, self._on_refused)
        writer.size_bytes = sum(len(entry.data) + len(entry.resume) for entry in history)
        self.has_room = writer.has_room
        return writer

    def _on_refused(self, error: ValkeyError | None) -> None:
        if error is None:
            self.abandon("the log refused its entries: another engine has it")
        else:
            self._log_error = error
            # Where it is being ended already, that only has to hear of this.
            if self._end is None:
                self.cancel()

    async def _infer(self, writer: Writer, history: list[log.Entry]) -> None:
        """Run the model to its end, however it ends, and wait until that is in the log."""
        delivered = [entry for entry in history if entry.event == log.TOKEN]
        self._handler = contract.StreamOutputHandler(
            self,
            delivered=[msgspec.json.decode(entry.data) for entry in delivered],
            resume_states=[msgspec.json.decode(entry.resume) if entry.resume else None for entry in delivered],
            max_output_bytes=self._means.settings.max_output_bytes,
            pace=self._means.paces.of(self.claim.job.flush_ms),
        )
        try:
            await contract.infer(self._means.model, self.claim.job.inputs, self._handler)
        except ModelDied:
            raise
        except EverstreamError as error:
            writer.end("failed", {"code": error.code, "message": error.message, "param": error.param})
        except Exception as error:
            logger.exception("generation %s: the model's infer raised", self.claim.generation[:8])
            message = f"the model raised {type(error).__name__}: {error}"[:500]
            writer.end("failed", {"code": "model_error", "message": message})
        await writer.finished.wait()

    async def _write_end(self, state: str, data: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.end(state, data)
            await self._writer.finished.wait()
            return
        try:
            await self._enter(state, data)
        except ValkeyError as error:
            self._log_error = error

    def put(self, entry: bytes, resume: bytes = b"") -> None:
        """The model's output, encoded."""
        writer = self._writer
        assert writer is not None
        if self._on_trial:
            self._leave_trial()
        writer.put(entry, resume)
        if writer.size_bytes > self._max_bytes:
            message = f"the outputs have more than {self._max_bytes} bytes (EVERSTREAM_MAX_GENERATION_BYTES)"
            self.break_off("failed", {"code": "output_too_large", "message": message})

    def end(self, state: str, data: object) -> None:
        """The model's own end."""
        assert self._writer is not None
        self._writer.end(state, data)

    def _leave_trial(self) -> None:
        if self._on_trial:
            self._on_trial = False
            self._means.trial.release()


def count_deaths(history: list[log.Entry]) -> Deaths:
    """Each takeover followed a death, and the one that asks now follows another."""
    since_output = list(itertools.takewhile(lambda entry: entry.event != log.TOKEN, reversed(history)))
    fences = [msgspec.json.decode(entry.resume, type=Fence) for entry in since_output if entry.event == "resumed"]
    return Deaths(
        in_all=sum(entry.event == "resumed" for entry in history) + 1,
        in_a_row=len(fences) + 1,
        on_trial=sum(fence.on_trial for fence in fences),
    )


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
