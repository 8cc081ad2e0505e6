"""Claims and leases: which generations this engine process runs.

In: jobs from the log's queue, jobs whose engine has died, cancellations. Out: a `GenerationTask` for each. One `Engine`
per process, created by `main`.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from valkey.exceptions import ValkeyError

from everstream.contract.model import CacheUse, Model
from everstream.engine import watchdog
from everstream.engine.appender import Appender
from everstream.engine.coalescer import FlushClocks
from everstream.engine.context import EngineContext
from everstream.engine.exits import EXIT_MODEL_DIED, die
from everstream.engine.generation_task import GenerationTask
from everstream.engine.meter import EngineMeter
from everstream.engine.validation import validate
from everstream.errors import ModelDied
from everstream.log.engine_log import Claim, EngineLog, Held, until_answered
from everstream.log.records import EngineStatus
from everstream.processes import kill_this_process
from everstream.settings import Settings

if TYPE_CHECKING:
    from everstream.otel import Tracing

logger = logging.getLogger(__name__)

RELEASE_S = 1.0
DRAINING_AFTER_S = 1.0
"""How long the work for an ended generation may take before the engine reports that it can't serve."""
WATCHDOG_LEASES = 3
"""After this many leases in which its event loop stood still, or `infer_stop_timeout_s`, the process exits."""
TICK_S = 0.5
"""How often leases are refreshed. Also the longest delay of a cancellation whose message was lost."""


class Engine:
    def __init__(
        self, settings: Settings, model: Model, engine_log: EngineLog, name: str, tracing: "Tracing | None" = None
    ) -> None:
        self._settings = settings
        self._model = model
        self._log = engine_log
        self._meter = EngineMeter(settings.model_name)
        self._appender = Appender(engine_log, settings.lease_s, self._meter.appends)
        self._context = EngineContext(
            settings, model, engine_log, self._appender, asyncio.Lock(), FlushClocks(), self._meter, tracing
        )
        self._started_at = time.monotonic()
        self._name = name
        self._capacity = settings.max_running if model.declaration.is_concurrent else 1
        self._running: dict[str, GenerationTask] = {}
        self._has_capacity = asyncio.Event()
        self._has_capacity.set()
        unread_s = min(settings.abandon_after_s, settings.post_abandon_after_s)
        self._tick_s = min(TICK_S, settings.lease_s / 3, unread_s / 4)
        self._blind_s = min(settings.lease_s, unread_s) / 2
        """After an interruption of this length, web processes may have been unable to record readers in time."""
        self._ticked_at = time.monotonic()
        self._disturbed_at = -math.inf
        self._looked_for_expired_at = -math.inf
        self._watching_since = time.monotonic()
        self._duties: list[asyncio.Task[None]] = []
        self._stopping = False
        self._fatal_error: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until cancelled. One task per duty; the first error of a duty is raised, and must end the process.

        No TaskGroup: it would wait for all duties to end, and one may miss its cancellation. valkey-py calls
        `asyncio.wait_for`, which in Python 3.11 loses a cancellation that arrives together with the result.
        """
        duties = (self._claim, self._keep_leases, self._watch_cancellations, self._validate, self._validate_long)
        self._duties = [asyncio.create_task(self._forever(duty)) for duty in duties]
        self._duties.append(asyncio.create_task(self._appender.run()))
        patience_s = max(WATCHDOG_LEASES * self._settings.lease_s, self._settings.infer_stop_timeout_s)
        self._duties.append(asyncio.create_task(watchdog.run(patience_s)))
        try:
            await asyncio.wait([*self._duties, self._fatal_error], return_when=asyncio.FIRST_COMPLETED)
            for ended in (*self._duties, self._fatal_error):
                if ended.done():
                    ended.result()
        finally:
            self._stopping = True
            for duty in self._duties:
                duty.cancel()

    async def release_leases(self) -> None:
        """Let other engines take over at once instead of after the lease. Call after `run`. Best effort."""
        await asyncio.wait(self._duties, timeout=RELEASE_S)
        claims = [Held(task.claim, task.log_bytes, task.tokens) for task in self._running.values()]
        for task in self._running.values():
            task.cancel()
        with suppress(ValkeyError, TimeoutError):
            await asyncio.wait_for(self._log.refresh(claims, idle_s=self._settings.lease_s), RELEASE_S)

    async def _forever(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Repeat a duty. Retry while Valkey is unavailable; any other error ends the engine."""
        while not self._stopping:
            await until_answered(duty, f"the duty to {duty.__name__.strip('_').replace('_', ' ')}")

    async def _claim(self) -> None:
        await self._has_capacity.wait()
        # Generations already begun come before queued ones. Leases run out slowly, so don't look at each claim.
        if time.monotonic() - self._looked_for_expired_at > self._tick_s:
            await self._take_over()
        room = self._capacity - len(self._running)
        if room > 0:
            for claim in await self._log.claim(room, self._calm_s):
                self._start(claim)

    async def _take_over(self) -> None:
        room = self._capacity - len(self._running)
        if room <= 0 or self._is_disturbed(since=self._disturbed_at, for_s=self._settings.lease_s / 2):
            return
        self._looked_for_expired_at = time.monotonic()
        # A tick less than the lease, so that the next engine takes over within the lease.
        idle_s = self._settings.lease_s - self._tick_s
        claims = await self._log.take_over(room, idle_s, calm_s=self._calm_s())
        alone = len(claims) == 1 and not self._running
        # Shuffle, so that a healthy generation isn't always retried first.
        random.shuffle(claims)
        for claim in claims:
            self._start(claim, alone=alone)

    async def _keep_leases(self) -> None:
        """Refresh our leases, take over expired ones, report our status."""
        if self._model.has_died:
            self._die_with_model()
        tasks = list(self._running.values())
        claims = [Held(task.claim, task.log_bytes, task.tokens) for task in tasks]
        refreshed = await self._log.refresh(claims, calm_s=self._calm_s())
        # A Valkey that was frozen in between has judged with an outdated `calm_s`.
        was_blind = self._is_blind
        self._notice_disturbance()
        for task, verdict in zip(tasks, refreshed.verdicts, strict=True):
            if verdict != "abandoned" or not was_blind:
                self._apply(verdict, task)
        if refreshed.full:
            self._shed()
        await self._take_over()
        await self._report()
        await asyncio.sleep(self._tick_s)

    async def _report(self) -> None:
        use = self._model.cache_use
        if use is not None:
            self._meter.note_cache(use.queries, use.hits)
        counted = self._meter.take()
        try:
            is_to_die = await self._log.report(self._status(use), counted)
        except ValkeyError:
            self._meter.put_back(counted)
            raise
        if is_to_die and self._settings.demo:
            kill_this_process()

    def _apply(self, verdict: str, task: GenerationTask) -> None:
        """Act on the log's verdict on a lease: `Refreshed.verdicts`."""
        # A job that ended during the call is no longer pending.
        if verdict == "lost" and not task.ended:
            task.abandon("its lease went to another engine")
        elif verdict == "foreign":
            task.fail("its keys in the log hold something else")
        elif verdict == "stop":
            task.break_off("cancelled", {"reason": "requested"})
        elif verdict == "abandoned":
            task.break_off("cancelled", {"reason": "abandoned"})

    def _notice_disturbance(self) -> None:
        """A late tick means that Valkey or this process was away.

        Meanwhile other engines may have been unable to refresh leases, and web processes to record readers, so they
        get time to catch up.
        """
        now = time.monotonic()
        if self._is_late:
            self._disturbed_at = now
        if self._is_blind:
            self._watching_since = now
        self._ticked_at = now

    @property
    def _is_late(self) -> bool:
        return time.monotonic() - self._ticked_at > self._settings.lease_s / 2

    @property
    def _is_blind(self) -> bool:
        return time.monotonic() - self._ticked_at > self._blind_s

    def _is_disturbed(self, since: float, for_s: float) -> bool:
        return self._is_late or time.monotonic() - since < for_s

    def _calm_s(self) -> float:
        """For how long web processes have been able to record readers."""
        return 0 if self._is_blind else time.monotonic() - self._watching_since

    def _shed(self) -> None:
        """The log is full of running generations: end the largest, so that the others can continue."""
        if largest := max(self._running.values(), key=lambda task: task.log_bytes, default=None):
            message = "the log is full, and this is the engine's largest generation"
            largest.break_off("failed", {"code": "log_full", "message": message})

    async def _watch_cancellations(self) -> None:
        async for generation in self._log.cancellations():
            if generation in self._running:
                self._running[generation].break_off("cancelled", {"reason": "requested"})

    async def _validate(self) -> None:
        await validate(self._model, self._log, is_long=False)

    async def _validate_long(self) -> None:
        await validate(self._model, self._log, is_long=True)

    def _start(self, claim: Claim, *, alone: bool = False) -> None:
        # A job may come back to an engine that still runs it, but was too slow to refresh its lease.
        if claim.generation in self._running:
            self._running[claim.generation].abandon("its lease ran out")
        task = GenerationTask(claim, self._context, alone=alone)
        self._running[claim.generation] = task
        self._update_capacity()
        task.start().add_done_callback(lambda ended: self._forget(task, ended))

    def _forget(self, task: GenerationTask, ended: asyncio.Task[None]) -> None:
        if not ended.cancelled() and (error := ended.exception()):
            if isinstance(error, ModelDied):
                self._die_with_model(error)
            if not self._fatal_error.done():
                self._fatal_error.set_exception(error)
        if self._running.get(task.claim.generation) is task:
            del self._running[task.claim.generation]
        self._update_capacity()

    def _die_with_model(self, error: ModelDied | None = None) -> NoReturn:
        causes = [str(cause) for cause in (error, self._model.death) if cause]
        die(EXIT_MODEL_DIED, f"the model died: {'; '.join(causes)}" if causes else "the model died")

    def _update_capacity(self) -> None:
        if len(self._running) < self._capacity:
            self._has_capacity.set()
        else:
            self._has_capacity.clear()

    def _status(self, use: CacheUse | None) -> EngineStatus:
        is_draining = any(task.waiting_s > DRAINING_AFTER_S for task in self._running.values())
        return EngineStatus(
            self._name,
            "draining" if is_draining else "ready",
            self._settings.model_name,
            error="waiting for the model to finish work on a generation that has already ended" if is_draining else "",
            max_model_len=self._model.max_model_len,
            running=len(self._running),
            model_requests=self._model.running_requests,
            cache_usage=use and use.usage,
            prompt_bound=self._model.prompt_bound,
            uptime_s=int(time.monotonic() - self._started_at),
        )
