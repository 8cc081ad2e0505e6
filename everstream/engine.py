"""The engine process: claims jobs, runs the model, appends what it says. `python -m everstream.engine`.

In: jobs from the log's queue. Out: entries in the log. One per GPU or model; asyncio under uvloop. Crash-only: a lease
that is no longer refreshed is taken over by another engine process, or by this one's successor, which is handed what
was delivered and goes on from there.

Exit statuses: 0 asked to end; 3 the model can't be loaded; 4 the model died under its generations; 5 the log answers
with an error that waiting does not heal.
"""

import asyncio
import gc
import logging
import math
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import uvloop
from valkey.exceptions import ValkeyError

from everstream import contract, log
from everstream.appender import Appender
from everstream.engine_log import Claim, EngineLog, until_answered
from everstream.errors import InvalidInput, LogBroken, ModelDied, ModelLoadError
from everstream.pacing import Paces
from everstream.running import Means, Running
from everstream.settings import Settings, SettingsError, load_settings
from everstream.vllm_plugin import ENGINE_PID_VARIABLE, SLEEP_VARIABLE

# vLLM's processes import this module before vLLM, as the main module of their parent. Python's default of 700 makes the
# collector walk a heap of imported modules over and over: a fifth of the time until the model is ready.
gc.set_threshold(50_000, 20, 100)

logger = logging.getLogger("everstream.engine")

EXIT_MODEL_LOAD = 3
EXIT_MODEL_DIED = 4
EXIT_LOG_BROKEN = 5
LET_GO_S = 1.0
TICK_S = 0.5
"""How often leases are refreshed: also how late, at most, a stop is noticed whose message was lost."""


class Engine:
    def __init__(self, settings: Settings, model: Any, engine_log: EngineLog, name: str) -> None:
        self._settings = settings
        self._model = model
        self._log = engine_log
        self._appender = Appender(engine_log, settings.lease_s)
        self._means = Means(settings, model, engine_log, self._appender, asyncio.Lock(), Paces())
        self._name = name
        self._capacity = settings.max_running if contract.runs_concurrently(model) else 1
        self._running: dict[str, Running] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._tick_s = min(TICK_S, settings.lease_s / 3)
        self._ticked_at = time.monotonic()
        self._disturbed_at = -math.inf
        self._watching_since = time.monotonic()
        self._duties: list[asyncio.Task[None]] = []
        self._stopping = False
        self._broke: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until cancelled. One task per duty; what breaks a duty is raised at once, and is to end the process.

        No TaskGroup: it would wait for the end of all duties, and one may miss its cancellation. valkey-py calls
        `asyncio.wait_for`, which loses it in Python 3.11 if it comes with the answer.
        """
        duties = (self._claim, self._keep_leases, self._heed_stops, self._answer_asks, self._answer_long_asks)
        self._duties = [asyncio.create_task(self._forever(duty)) for duty in duties]
        self._duties.append(asyncio.create_task(self._appender.run()))
        try:
            await asyncio.wait([*self._duties, self._broke], return_when=asyncio.FIRST_COMPLETED)
            for ended in (*self._duties, self._broke):
                if ended.done():
                    ended.result()
        finally:
            self._stopping = True
            for duty in self._duties:
                duty.cancel()

    async def let_go(self) -> None:
        """Hand the leases back, so that another engine need not wait for their end. After `run`; a favour only."""
        await asyncio.wait(self._duties, timeout=LET_GO_S)
        claims = [(running.claim, running.log_bytes) for running in self._running.values()]
        for running in self._running.values():
            running.cancel()
        with suppress(ValkeyError, TimeoutError):
            await asyncio.wait_for(self._log.refresh(claims, idle_s=self._settings.lease_s), LET_GO_S)

    async def _forever(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Repeat a duty. Retry while Valkey is unavailable; any other error ends the engine."""
        while not self._stopping:
            await until_answered(duty, f"the duty to {duty.__name__.strip('_').replace('_', ' ')}")

    async def _claim(self) -> None:
        await self._room.wait()
        # What was begun comes before what waits.
        await self._take_over()
        room = self._capacity - len(self._running)
        if room > 0:
            for claim in await self._log.claim(room, abandon=self._may_abandon()):
                self._start(claim)

    async def _take_over(self) -> None:
        room = self._capacity - len(self._running)
        if room <= 0 or self._is_disturbed(since=self._disturbed_at, for_s=self._settings.lease_s / 2):
            return
        # A tick less than the lease, so that the next engine has it within the lease.
        idle_s = self._settings.lease_s - self._tick_s
        claims = await self._log.take_over(room, idle_s, abandon=self._may_abandon())
        alone = len(claims) == 1 and not self._running
        # Shuffle, so that a healthy generation isn't always retried first.
        random.shuffle(claims)
        for claim in claims:
            self._start(claim, alone=alone)

    async def _keep_leases(self) -> None:
        """Refresh ours, take over what others left, say that we live."""
        if getattr(self._model, "has_died", False):
            _die(EXIT_MODEL_DIED, "the model died")
        running = list(self._running.values())
        claims = [(each.claim, each.log_bytes) for each in running]
        refreshed = await self._log.refresh(claims, abandon=self._may_abandon())
        self._notice_disturbance()
        for each, verdict in zip(running, refreshed.verdicts, strict=True):
            # A job that ended while this asked is not pending any more.
            if verdict == "lost" and not each.ended:
                each.abandon("its lease went to another engine")
            elif verdict == "foreign":
                each.fail("its keys in the log hold something else")
            elif verdict == "stop":
                each.break_off("cancelled", {"reason": "requested"})
            elif verdict == "abandoned":
                each.break_off("cancelled", {"reason": "abandoned"})
        if refreshed.full:
            self._shed()
        await self._take_over()
        await self._log.report(self._status())
        await asyncio.sleep(self._tick_s)

    def _notice_disturbance(self) -> None:
        """A tick that came late says that Valkey was away, or this process.

        Then nobody's leases could be refreshed and nobody could be heard reading: others get time for it.
        """
        now = time.monotonic()
        if self._is_late:
            self._disturbed_at = self._watching_since = now
        self._ticked_at = now

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self._ticked_at > self._settings.lease_s / 2

    def _is_disturbed(self, since: float, for_s: float) -> bool:
        return self._is_late or time.monotonic() - since < for_s

    def _may_abandon(self) -> bool:
        return not self._is_disturbed(since=self._watching_since, for_s=self._settings.abandon_after_s)

    def _shed(self) -> None:
        """The log is full of running generations: end the largest, so that the others can go on."""
        if largest := max(self._running.values(), key=lambda each: each.log_bytes, default=None):
            message = "the log is full, and this is the engine's largest generation"
            largest.break_off("failed", {"code": "log_full", "message": message})

    async def _heed_stops(self) -> None:
        async for generation in self._log.stops():
            if generation in self._running:
                self._running[generation].break_off("cancelled", {"reason": "requested"})

    async def _answer_asks(self) -> None:
        await self._answer(await self._log.next_ask(is_long=False))

    async def _answer_long_asks(self) -> None:
        await self._answer(await self._log.next_ask(is_long=True))

    async def _answer(self, ask: log.Ask | None) -> None:
        if ask is not None:
            await self._log.answer(ask, await self._check(ask.inputs))

    async def _check(self, inputs: dict[str, Any]) -> log.Answer:
        try:
            await contract.check(self._model, inputs)
        except InvalidInput as error:
            return log.Answer(error.message, error.param, error.code)
        except Exception as error:
            logger.exception("the model's check failed")
            return log.Answer(f"the model's check raised {type(error).__name__}", is_bug=True)
        return log.Answer()

    def _start(self, claim: Claim, *, alone: bool = False) -> None:
        # A job may come back to an engine that was too slow to refresh its lease and still runs it.
        if claim.generation in self._running:
            self._running[claim.generation].abandon("its lease ran out")
        running = Running(claim, self._means, alone=alone)
        self._running[claim.generation] = running
        self._heed_room()
        running.task.add_done_callback(lambda _: self._forget(running))

    def _forget(self, running: Running) -> None:
        if not running.task.cancelled() and (error := running.task.exception()):
            if isinstance(error, ModelDied):
                _die(EXIT_MODEL_DIED, f"the model died: {error}")
            if not self._broke.done():
                self._broke.set_exception(error)
        if self._running.get(running.claim.generation) is running:
            del self._running[running.claim.generation]
        self._heed_room()

    def _heed_room(self) -> None:
        if len(self._running) < self._capacity:
            self._room.set()
        else:
            self._room.clear()

    def _status(self) -> log.EngineStatus:
        return log.EngineStatus(
            self._name,
            "ready",
            self._settings.model_name,
            max_model_len=getattr(self._model, "max_model_len", None),
            running=len(self._running),
            model_requests=getattr(self._model, "running_requests", None),
            fit=fit if isinstance(fit := getattr(self._model, "prompt_fit", None), log.Fit) else None,
        )


def _die(status: int, message: str) -> NoReturn:
    """Leave as a crash would: nothing is tidied up, the log has what counts."""
    logger.critical("%s", message)
    logging.shutdown()
    os._exit(status)


async def _load(settings: Settings, engine_log: EngineLog, name: str) -> Any:
    """Load the model, and say so. While a launcher tries again after a failure, that failure stays the answer."""
    app_dir = Path(settings.app_dir).resolve()
    status = log.EngineStatus(name, "loading", settings.model_name, parent=os.getppid())
    # Valkey may come up after us.
    earlier = await until_answered(lambda: engine_log.last_report(name), f"the engine, at {settings.safe_log_url},")
    if earlier is None or earlier.state != "failed" or earlier.parent != status.parent:
        await until_answered(lambda: engine_log.report(status))
    try:
        model = contract.load_model(app_dir)
        await contract.initialize(model, app_dir)
    except ModelLoadError as error:
        failed = msgspec.structs.replace(status, state="failed", error=str(error))
        await until_answered(lambda: engine_log.report(failed))
        logger.debug("the model can't be loaded", exc_info=error)
        _die(EXIT_MODEL_LOAD, f"the model can't be loaded: {error}")
    return model


async def main(settings: Settings) -> None:
    name = settings.engine_name or socket.gethostname()
    engine_log = EngineLog(settings, consumer=f"{name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        await _serve(settings, engine_log, name)
    except BaseException as error:
        await _break(settings, engine_log, name, error)


async def _break(settings: Settings, engine_log: EngineLog, name: str, error: BaseException) -> NoReturn:
    """End the process for an error that it can't go on with, and say which where people look."""
    if not isinstance(error, ValkeyError):
        logger.critical("the engine broke", exc_info=error)
        _die(1, "the engine can't go on")
    message = f"the log (Valkey) refuses what the engine asks of it: {error}"
    status = log.EngineStatus(
        name, "failed", settings.model_name, error=message, code=LogBroken.code, parent=os.getppid()
    )
    # It may refuse that too.
    with suppress(ValkeyError, TimeoutError):
        await asyncio.wait_for(engine_log.report(status), LET_GO_S)
    _die(EXIT_LOG_BROKEN, message)


async def _serve(settings: Settings, engine_log: EngineLog, name: str) -> None:
    model = await _load(settings, engine_log, name)
    # Loaded objects live until exit; exclude them from garbage collection.
    gc.collect()
    gc.freeze()
    engine = Engine(settings, model, engine_log, name)
    serving = asyncio.create_task(engine.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    logger.info("ready: %s", settings.model_name)
    try:
        await serving
    except asyncio.CancelledError:
        await engine.let_go()
        await contract.finalize(model)
        _die(0, "asked to end")


if __name__ == "__main__":
    os.environ[ENGINE_PID_VARIABLE] = str(os.getpid())
    os.environ[SLEEP_VARIABLE] = "1"
    try:
        loaded = load_settings()
        logging.basicConfig(level=loaded.log_level.upper(), format="%(message)s", stream=sys.stderr)
        uvloop.run(main(loaded))
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
