"""The engine process: claims jobs, runs the model, appends what it says. `python -m everstream.engine`.

In: jobs from the log's queue. Out: entries in the log. One per GPU or model; asyncio under uvloop. Crash-only: a lease
that is no longer refreshed is taken over by another engine process, or by this one's successor, which is handed what
was delivered and goes on from there.

Exit statuses: 0 asked to end; 3 the model can't be loaded; 4 the model died under its generations.
"""

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvloop

from everstream import contract, log
from everstream.appender import Appender, Writer
from everstream.engine_log import UNREACHABLE, Batch, Claim, EngineLog
from everstream.errors import EverstreamError, InvalidInput, ModelDied, ModelLoadError
from everstream.settings import Settings, SettingsError, load_settings
from everstream.vllm_plugin import ENGINE_PID_VARIABLE

# vLLM's processes import this module before vLLM, as the main module of their parent. Python's default of 700 makes the
# collector walk a heap of imported modules over and over: a fifth of the time until the model is ready.
gc.set_threshold(50_000, 20, 100)

logger = logging.getLogger("everstream.engine")

EXIT_MODEL_LOAD = 3
EXIT_MODEL_DIED = 4
MAX_ATTEMPTS = 3
"""A generation that was under way at this many engine deaths is given up: it may be what kills them."""

RETRY_S = 0.5


class Engine:
    def __init__(self, settings: Settings, model: Any, engine_log: EngineLog, name: str) -> None:
        self._settings = settings
        self._model = model
        self._log = engine_log
        self._name = name
        self._capacity = settings.max_running if contract.runs_concurrently(model) else 1
        self._running: dict[str, Running] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._appender = Appender(engine_log)

    async def run(self) -> None:
        """Serve until cancelled. One task per duty; a duty that breaks ends the process."""
        try:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._appender.run())
                duties.create_task(self._forever(self._claim))
                duties.create_task(self._forever(self._keep_leases))
                duties.create_task(self._forever(self._heed_stops))
                duties.create_task(self._forever(self._answer_asks))
        finally:
            for running in self._running.values():
                running.cancel()

    async def _forever(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Repeat a duty; while Valkey is away, wait and try again."""
        while True:
            try:
                await duty()
            except UNREACHABLE as error:
                logger.warning("Valkey does not answer (%s), trying again: %s", duty.__name__.strip("_"), error)
                await asyncio.sleep(RETRY_S)

    async def _claim(self) -> None:
        await self._room.wait()
        for claim in await self._log.claim(self._capacity - len(self._running)):
            self._start(claim)

    async def _keep_leases(self) -> None:
        """Refresh ours, take over what others left, say that we live; three times within a lease."""
        running = list(self._running.values())
        verdicts = await self._log.refresh([each.claim for each in running])
        for each, verdict in zip(running, verdicts, strict=True):
            # A job that ended while this asked is not pending any more.
            if verdict == "lost" and not each.ended:
                each.abandon("its lease went to another engine")
            elif verdict == "stop":
                each.stop()
        room = self._capacity - len(self._running)
        if room > 0:
            for claim in await self._log.take_over(room):
                self._start(claim)
        await self._log.report(self._status())
        await asyncio.sleep(self._settings.lease_s / 3)

    async def _heed_stops(self) -> None:
        async for generation in self._log.stops():
            if generation in self._running:
                self._running[generation].stop()

    async def _answer_asks(self) -> None:
        ask = await self._log.next_ask()
        if ask is not None:
            await self._log.answer(ask, await self._check(ask.inputs))

    async def _check(self, inputs: dict[str, Any]) -> log.Answer:
        check = getattr(self._model, "check", None)
        try:
            if check is not None:
                # In a thread: it tokenizes long prompts, and the event loop has tokens to deliver.
                await asyncio.to_thread(check, inputs)
        except InvalidInput as error:
            return log.Answer(error.message, error.param, error.code)
        except Exception:
            logger.exception("the model's check failed")
        return log.Answer()

    def _start(self, claim: Claim) -> None:
        # A job may come back to an engine that was too slow to refresh its lease and still runs it.
        if claim.generation in self._running:
            self._running[claim.generation].abandon("its lease ran out")
        running = Running(claim, self._model, self._log, self._appender)
        self._running[claim.generation] = running
        self._heed_room()
        running.task.add_done_callback(lambda _: self._forget(running))

    def _forget(self, running: "Running") -> None:
        if not running.task.cancelled() and (error := running.task.exception()):
            # Its lease runs out, and it is taken up again.
            logger.warning("generation %s is left for now: %r", running.claim.generation[:8], error)
        if self._running.get(running.claim.generation) is running:
            del self._running[running.claim.generation]
        self._heed_room()

    def _heed_room(self) -> None:
        if len(self._running) < self._capacity:
            self._room.set()
        else:
            self._room.clear()

    def _status(self) -> log.EngineStatus:
        limit = getattr(self._model, "max_model_len", None)
        return log.EngineStatus(
            self._name, "ready", self._settings.model_name, max_model_len=limit, running=len(self._running)
        )


class Running:
    """One generation under way."""

    def __init__(self, claim: Claim, model: Any, engine_log: EngineLog, appender: Appender) -> None:
        self.claim = claim
        self._model = model
        self._log = engine_log
        self._appender = appender
        self._stopped = False
        self._writer: Writer | None = None
        self._handler: contract.StreamOutputHandler | None = None
        self.task = asyncio.create_task(self._run(), name=claim.generation)

    @property
    def ended(self) -> bool:
        return self._writer is not None and self._writer.ended

    def stop(self) -> None:
        """It was asked to stop: end it with `cancelled`."""
        if not self._stopped:
            self._stopped = True
            self.cancel()

    def abandon(self, why: str) -> None:
        """Another engine has it: say nothing more."""
        if self._writer is not None:
            self._writer.close()
        logger.warning("generation %s is given up: %s", self.claim.generation[:8], why)
        self.cancel()

    def cancel(self) -> None:
        """Break off the model's work."""
        if self._handler is not None:
            self._handler.stopped = True
        self.task.cancel()

    async def _run(self) -> None:
        history = await self._take_up() if self.claim.taken_over else []
        if history is None:
            return
        writer = self._appender.writer(self.claim.generation, len(history) + 1, self._on_refused)
        self._writer = writer
        try:
            await self._infer(writer, history)
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            # The cancellation was ours and has done its work; this task still has an entry to write.
            _uncancel()
            writer.end("cancelled", {"reason": "requested"})
        except ModelDied as error:
            _die(EXIT_MODEL_DIED, f"the model died: {error}")
        except EverstreamError as error:
            writer.end("failed", {"code": error.code, "message": error.message, "param": error.param})
        except Exception as error:
            logger.exception("generation %s: the model's infer raised", self.claim.generation[:8])
            message = f"the model raised {type(error).__name__}: {error}"[:500]
            writer.end("failed", {"code": "model_error", "message": message})
        await writer.finished.wait()

    def _on_refused(self) -> None:
        self.abandon("the log refused its entries: another engine has it")

    async def _infer(self, writer: Writer, history: list[log.Entry]) -> None:
        delivered = [entry for entry in history if entry.event == log.TOKEN]
        self._handler = contract.StreamOutputHandler(
            send=writer.put,
            finish=lambda data: writer.end("done", data),
            delivered=[msgspec.json.decode(entry.data) for entry in delivered],
            resume_states=[msgspec.json.decode(entry.resume) if entry.resume else None for entry in delivered],
        )
        await contract.infer(self._model, self.claim.inputs, self._handler)

    async def _take_up(self) -> list[log.Entry] | None:
        """Fence off the engine that had this generation, and return what was delivered; None if nothing is left to do.

        The fence is an entry of our own, `resumed`: once it is in the log, the next append of an engine that only
        slept is refused, as its number is taken. It carries our name, so that two engines can't both think it theirs.
        """
        while True:
            history = await self._log.history(self.claim.generation)
            attempt = sum(entry.event == "resumed" for entry in history) + 2
            state, data = _next_attempt(attempt)
            entry = log.encode_entry(state or "resumed", data), log.encode_json(self._log.consumer)
            refused = await self._log.append([Batch(self.claim.generation, len(history) + 1, [entry], state)])
            if not refused:
                logger.info("generation %s taken over, attempt %d", self.claim.generation[:8], attempt)
                return None if state else await self._log.history(self.claim.generation)
            if history and history[-1].is_terminal:
                return None


def _next_attempt(attempt: int) -> tuple[str, dict[str, Any]]:
    """The final state ('' to go on) and the data of the entry that begins this attempt."""
    if attempt <= MAX_ATTEMPTS:
        return "", {"attempt": attempt}
    message = f"the engine died {MAX_ATTEMPTS} times while it worked on this generation"
    return "failed", {"code": "engine_crashed", "message": message}


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _die(status: int, message: str) -> NoReturn:
    """Leave as a crash would: nothing is tidied up, the log has what counts."""
    logger.critical("%s", message)
    logging.shutdown()
    os._exit(status)


async def _load(settings: Settings, engine_log: EngineLog, name: str) -> Any:
    """Load the model, and say so. While a launcher tries again after a failure, that failure stays the answer."""
    app_dir = Path(settings.app_dir).resolve()
    status = log.EngineStatus(name, "loading", settings.model_name, parent=os.getppid())
    earlier = await engine_log.last_report(name)
    if earlier is None or earlier.state != "failed" or earlier.parent != status.parent:
        await engine_log.report(status)
    try:
        model = contract.load_model(app_dir)
        await contract.initialize(model, app_dir)
    except ModelLoadError as error:
        await engine_log.report(msgspec.structs.replace(status, state="failed", error=str(error)))
        logger.debug("the model can't be loaded", exc_info=error)
        _die(EXIT_MODEL_LOAD, f"the model can't be loaded: {error}")
    return model


async def _reach(engine_log: EngineLog, settings: Settings) -> None:
    """Wait for Valkey: it may come up after us."""
    while True:
        try:
            await engine_log.last_report("")
            return
        except UNREACHABLE as error:
            logger.warning("waiting for Valkey at %s: %s", settings.safe_log_url, error)
            await asyncio.sleep(RETRY_S)


async def main(settings: Settings) -> None:
    name = settings.engine_name or socket.gethostname()
    engine_log = EngineLog(settings, consumer=f"{name}-{os.getpid()}-{secrets.token_hex(4)}")
    await _reach(engine_log, settings)
    model = await _load(settings, engine_log, name)
    engine = asyncio.create_task(Engine(settings, model, engine_log, name).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, engine.cancel)
    logger.info("ready: %s", settings.model_name)
    try:
        await engine
    except asyncio.CancelledError:
        # Jobs under way stay claimed; whoever takes them over goes on from the log.
        await contract.finalize(model)
        _die(0, "asked to end")
    except BaseException:
        logger.exception("a duty of the engine broke")
        _die(1, "the engine can't go on")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    os.environ[ENGINE_PID_VARIABLE] = str(os.getpid())
    try:
        uvloop.run(main(load_settings()))
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
