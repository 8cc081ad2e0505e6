"""One generation running in an engine: continue where the log stands, run the model, end it once.

In: a claim. Out: entries, through a coalescer and an `appender.Writer`. Created and watched by `engine`; it is the sink
of the model's `StreamOutputHandler`.
"""

import asyncio
import logging
import time
from functools import partial
from typing import Any

import msgspec
from valkey.exceptions import ValkeyError

from everstream.contract.inputs import text_bytes
from everstream.contract.model import in_words
from everstream.contract.output_handler import HandlerOptions, StreamOutputHandler
from everstream.engine import access_log
from everstream.engine.appender import Writer
from everstream.engine.coalescer import Coalescer
from everstream.engine.context import EngineContext
from everstream.engine.crash_policy import Fence, count_deaths
from everstream.engine.meter import GenerationMeter
from everstream.engine.time_limits import TimeLimits
from everstream.engine.traces import GenerationTrace
from everstream.errors import EverstreamError, InternalError, LogBroken, ModelDied, ModelStuck
from everstream.log.engine_log import EMPTY, Claim, History, until_answered
from everstream.log.entries import TERMINAL, TOKEN, encode_entry, encode_json, encode_token

logger = logging.getLogger(__name__)


class GenerationTask:
    """Its asyncio task ends when the generation's end is in the log, or another engine has it, and the model has ended
    its work for it. ModelDied and ModelStuck propagate, and so does the ValkeyError of a log that refuses that end."""

    def __init__(self, claim: Claim, context: EngineContext, *, alone: bool) -> None:
        """`alone`: nothing else runs in this engine, and nothing else was taken over with it."""
        self.claim = claim
        self._context = context
        self._alone = alone
        self._max_bytes = context.settings.max_generation_bytes
        self._end: tuple[str, dict[str, Any]] | None = None
        self._log_error: ValkeyError | None = None
        self._on_trial = False
        self._writer: Writer | None = None
        self._handler: StreamOutputHandler | None = None
        self._coalescer: Coalescer | None = None
        self._began_at = time.monotonic()
        self._submitted_at = time.monotonic() - claim.queued_s
        self._meter: GenerationMeter | None = None
        self._trace = GenerationTrace(context.tracing, claim, context.settings.model_name)
        self._own_end = "", ""
        """State and code of a terminal entry that was written without the writer."""
        self._limits = TimeLimits(
            context.settings.infer_idle_timeout_s,
            context.settings.infer_timeout_s,
            is_blocked=lambda: self._writer is not None and not self._writer.writable.is_set(),
            on_exceeded=self._on_time_limit,
        )
        self._waiting_since: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._run(), name=self.claim.generation)
        return self._task

    @property
    def ended(self) -> bool:
        return self._waiting_since is not None or (self._writer is not None and self._writer.ended)

    @property
    def waiting_s(self) -> float:
        """For how long it has waited for the model's work to end."""
        return 0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    @property
    def log_bytes(self) -> int:
        """Approximate size of its entries in the log; 0: not known yet."""
        return self._writer.log_bytes if self._writer else 0

    @property
    def tokens(self) -> int:
        """So far, and at the end with those of the prompt."""
        return self._meter.tokens if self._meter else 0

    def break_off(self, state: str, data: dict[str, Any]) -> None:
        """Cancel the model's work and end the generation with this terminal entry. Only the first end counts."""
        if self._end is None and self._log_error is None and not self.ended:
            self._end = state, data
            self.cancel()

    def fail(self, why: str) -> None:
        """End the generation, because the log can't take its entries any more."""
        if self._writer is not None:
            self._writer.close()
        self._on_refused(ValkeyError(why))

    def abandon(self, why: str) -> None:
        """Another engine has it: append nothing more."""
        if self._writer is not None:
            self._writer.close()
        logger.warning("giving up generation %s: %s", self.claim.generation[:8], why)
        self.cancel()

    def cancel(self) -> None:
        """Cancel the model's work. It has been cancelled already if this task only waits for its end."""
        if self._waiting_since is not None:
            return
        if self._handler is not None:
            self._handler.stop()
        if self._coalescer is not None:
            self._coalescer.discard()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            history = await self._take_up() if self.claim.taken_over else EMPTY
            if history is None:
                return
            if self._end is not None:
                # valkey-py may have lost the cancellation (see `Engine.run`).
                raise asyncio.CancelledError
            await self._infer(history)
        except asyncio.CancelledError:
            if self._end is None and self._log_error is None:
                raise
            # The cancellation was ours and has done its work; this task still has to write an entry.
            _uncancel()
            if self._end is not None:
                await self._write_end(*self._end)
            if self._log_error is not None:
                await self._fail(self._log_error)
        except ModelDied:
            # Nothing of it is worth waiting for.
            self._handler = None
            raise
        except Exception as error:
            await self._fail(error)
        finally:
            self._count_end()
            writer = self._writer
            state, code = (writer.state, writer.code) if writer and writer.state else self._own_end
            access_log.log_generation(self.claim, state, self.tokens, self._began_at, self._trace.trace_id)
            self._trace.end(state, code, self._meter)
            self._leave_trial()
            await self._wait_until_idle()

    def _count_end(self) -> None:
        if self._meter is None:
            return
        if self._writer is not None and self._writer.state:
            seconds = time.monotonic() - self._submitted_at
            self._context.meter.count_end(self._meter, self._writer.state, self._writer.code, seconds)
        self._meter.close()

    async def _wait_until_idle(self) -> None:
        """Wait until the model does nothing more for this generation. Raises ModelStuck."""
        if self._handler is None or self._context.model.has_died:
            return
        self._handler.stop()
        self._waiting_since = time.monotonic()
        if why := await self._context.model.wait_until_idle(self._context.settings.infer_stop_timeout_s):
            raise ModelStuck(why)

    def _on_time_limit(self, message: str) -> None:
        self.break_off("failed", {"code": "infer_timeout", "message": message})

    async def _fail(self, error: Exception) -> None:
        """Appending does not work, for this generation at least: end it another way."""
        if self._writer is not None:
            self._writer.close()
        is_log_error = isinstance(error, ValkeyError)
        what = f"the log (Valkey) refuses it: {error}" if is_log_error else "something went wrong in the engine"
        logger.error("generation %s: %s", self.claim.generation[:8], what, exc_info=None if is_log_error else error)
        kind = LogBroken if is_log_error else InternalError
        await until_answered(partial(self._context.log.fail, self.claim, kind.code, what))
        self._own_end = "failed", kind.code

    async def _take_up(self) -> History | None:
        """Fence off the engine that had this generation. Returns the log so far; None if nothing is left to do.

        The fence is an entry of our own, `resumed`. Once it is in the log, the next append of an engine that was only
        asleep is refused, because its place is taken. It carries our name, so that two engines can't both claim it.
        """
        deaths = count_deaths((await self._history()).entries)
        if deaths.are_too_many:
            message = f"the engine died {deaths.in_all} times while running this generation"
            await self._append_own("failed", {"code": "engine_crashed", "message": message})
            return None
        if self._alone or deaths.are_suspicious:
            # Suspects run one at a time. The next one starts when the current one has produced output or has run for
            # a while, so that the next death identifies its cause.
            await self._context.trial.acquire()
            self._on_trial = True
            asyncio.get_running_loop().call_later(self._context.settings.lease_s, self._leave_trial)
        self._trace.note_attempt(deaths.in_all + 1)
        return await self._append_own("resumed", {"attempt": deaths.in_all + 1})

    async def _append_own(self, event: str, data: dict[str, Any]) -> History | None:
        """Append an entry of our own wherever the log stands. Returns the log with it; None if the log has ended."""
        generation = self.claim.generation
        while True:
            history = await self._history()
            if history.entries and history.entries[-1].is_terminal:
                return None
            fence = encode_json(Fence(self._context.log.consumer, self._on_trial))
            state = event if event in TERMINAL else ""
            batch = history.followed_by(generation, encode_entry(event, data), fence, final=state)
            if not await until_answered(partial(self._context.log.append, [batch])):
                if state:
                    self._own_end = state, str(data.get("code", ""))
                logger.info("generation %s taken over: %s %s", generation[:8], event, data)
                return await self._history()

    async def _history(self) -> History:
        return await until_answered(lambda: self._context.log.history(self.claim.generation))

    def _on_refused(self, error: ValkeyError | None) -> None:
        if error is None:
            self.abandon("the log refused its entries: another engine has it")
        else:
            self._log_error = error
            # If it is already being ended, the task only needs to know the error.
            if self._end is None:
                self.cancel()

    async def _infer(self, history: History) -> None:
        """Run the model until it ends in any way, and wait until that end is in the log."""
        settings, job = self._context.settings, self.claim.job
        writer = self._context.appender.open_writer(self.claim.generation, history, on_refused=self._on_refused)
        self._writer = writer
        clock = self._context.flush_clocks.of(job.flush_ms)
        self._coalescer = Coalescer(clock, self._write, settings.max_output_bytes)
        delivered = [entry for entry in history.entries if entry.event == TOKEN]
        states = [entry.resume for entry in delivered]
        self._meter = GenerationMeter(self._context.meter, self._submitted_at, states, job.key)
        if not self.claim.taken_over:
            self._context.meter.waits.add(self.claim.queued_s)
        self._handler = StreamOutputHandler(
            self,
            delivered=[msgspec.json.decode(entry.data) for entry in delivered],
            resume_states=[msgspec.json.decode(entry.resume) if entry.resume else None for entry in delivered],
            options=HandlerOptions(settings.max_output_bytes, self._context.model.declaration.stop_raises),
        )
        self._limits.start()
        try:
            await self._context.model.infer(job.inputs | job.added, self._handler)
        except ModelDied:
            raise
        except EverstreamError as error:
            self._handler.fail(error.code, error.message, error.param)
        except Exception as error:
            logger.exception("generation %s: the model's infer raised", self.claim.generation[:8])
            self._handler.fail("model_error", f"the model raised {in_words(error)}")
        finally:
            self._limits.stop()
        if self._end is not None or self._log_error is not None:
            # The cancellation comes here, unless the model has swallowed it, or raised something else instead.
            await asyncio.sleep(0)
            raise asyncio.CancelledError
        await writer.finished.wait()

    async def _write_end(self, state: str, data: dict[str, Any]) -> None:
        if self._writer is not None:
            if self._meter is not None:
                # The model has not said how long the prompt was.
                self._meter.estimate_prompt(text_bytes(self.claim.job.inputs))
            self._writer.note_tokens(self.tokens)
            self._writer.end(state, data)
            await self._writer.finished.wait()
            return
        try:
            await self._append_own(state, data)
        except ValkeyError as error:
            self._log_error = error

    @property
    def writable(self) -> asyncio.Event:
        """With `put`, `end`, `progress` and `reject`, the handler's `Sink`."""
        assert self._writer is not None
        return self._writer.writable

    def put(self, output: bytes, resume: bytes, joinable: int) -> None:
        assert self._coalescer is not None and self._meter is not None
        self._meter.note(self._limits.touch(), joinable)
        self._coalescer.put(output, resume, joinable)

    def end(self, state: str, data: dict[str, Any]) -> None:
        assert self._coalescer is not None and self._meter is not None and self._writer is not None
        self._coalescer.flush()
        self._meter.end(data.get("usage"))
        self._trace.note_finish(data.get("finish_reason"))
        self._writer.note_tokens(self._meter.tokens)
        self._writer.end(state, data)

    def progress(self) -> None:
        self._limits.touch()

    def reject(self, data: dict[str, Any]) -> None:
        self.end("failed", data)
        self._end = "failed", data
        self.cancel()

    def _write(self, output: bytes, resume: bytes) -> None:
        """One entry of model output."""
        writer = self._writer
        assert writer is not None
        if self._on_trial:
            self._leave_trial()
        writer.put(encode_token(output), resume)
        if writer.size_bytes > self._max_bytes:
            message = f"the output exceeds {self._max_bytes} bytes (EVERSTREAM_MAX_GENERATION_BYTES)"
            self.break_off("failed", {"code": "output_too_large", "message": message})

    def _leave_trial(self) -> None:
        if self._on_trial:
            self._on_trial = False
            self._context.trial.release()


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
