"""The phases of a run. Each starts a stack, runs all prompts undisturbed, then runs streams and faults together.

In: a `Phase` and the seed. Out: a `Result` with every reader and every fault. Called by `__main__`.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from chaos import faults, prompts, tiny_model
from chaos.arena import Arena
from chaos.client import Client
from chaos.crowd import Crowd
from chaos.topics import TopicCrowd
from everstream.llm import demo_model
from everstream.settings import PROJECT_ROOT, Settings
from harness.stack import MODELS

UNDISTURBED_TIMEOUT_S = 120
BUSY_TIMEOUT_S = 600
"""Time beyond the phase's duration for all repairs. If it is exceeded, stuck streams may occupy every slot."""
DRAIN_TIMEOUT_S = 90
"""Measured from the last repair: streams that have not ended by then are stuck."""
PROBE_S = 0.2


@dataclass(frozen=True)
class Phase:
    """`streams` is the minimum number started, `duration_s` the time over which the faults are spread."""

    name: str
    model: Callable[[Settings], object]
    engine_args: str
    prompts: list[dict]
    in_flight: int
    streams: int
    duration_s: float
    faults: dict[str, int]
    app_dir: Path = PROJECT_ROOT


@dataclass
class Result:
    phase: Phase
    duration_s: float = 0.0
    start_s: float = 0.0
    undisturbed_s: float = 0.0
    drain_s: float = 0.0
    lag_s: float = 0.0
    most_at_once: int = 0
    readers: list = field(default_factory=list)
    faults: list = field(default_factory=list)
    topics: TopicCrowd | None = None
    problems: list[str] = field(default_factory=list)
    """Problems that don't belong to a single reader."""


TINY = Phase(
    "tiny",
    tiny_model.build,
    "--dtype float32 --max-model-len 4096 --kv-cache-memory-bytes 512M",
    prompts.TINY,
    in_flight=100,
    streams=450,
    duration_s=190,
    faults={
        "kill -9 gunicorn worker": 15,
        "kill -9 gunicorn master": 3,
        "SIGTERM gunicorn master": 2,
        "SIGHUP gunicorn master": 2,
        "kill -9 engine": 3,
        "kill -9 EngineCore": 2,
        "kill -9 vLLM worker": 2,
        "SIGSTOP engine over its lease": 2,
        "kill -9 Valkey": 7,
        "SIGSTOP Valkey": 2,
        "SIGSTOP Valkey for 20 s": 1,
        "Valkey out of memory": 2,
        "full disk, fsync always": 2,
        "full disk, fsync everysec": 1,
        "kill -9 nginx": 5,
        "kill -9 supervisor": 1,
    },
)
SMOLLM2 = Phase(
    "smollm2",
    demo_model.build,
    "--dtype float32 --max-model-len 2048 --kv-cache-memory-bytes 2G",
    prompts.SMOLLM2,
    in_flight=12,
    streams=60,
    duration_s=110,
    faults={
        "kill -9 gunicorn worker": 9,
        "kill -9 gunicorn master": 2,
        "SIGTERM gunicorn master": 1,
        "SIGHUP gunicorn master": 1,
        "kill -9 engine": 2,
        "kill -9 EngineCore": 1,
        "kill -9 vLLM worker": 1,
        "SIGSTOP engine over its lease": 1,
        "kill -9 Valkey": 4,
        "SIGSTOP Valkey": 1,
        "Valkey out of memory": 1,
        "full disk, fsync always": 1,
        "kill -9 nginx": 3,
    },
)
PLAIN = Phase(
    "plain",
    lambda _: "plain",
    "",
    prompts.PLAIN,
    in_flight=16,
    streams=80,
    duration_s=60,
    faults={
        "kill -9 gunicorn worker": 4,
        "kill -9 gunicorn master": 1,
        "SIGHUP gunicorn master": 1,
        "kill -9 engine": 5,
        "SIGSTOP engine over its lease": 2,
        "kill -9 Valkey": 3,
        "SIGSTOP Valkey": 1,
        "Valkey out of memory": 1,
        "kill -9 nginx": 2,
    },
    app_dir=MODELS / "threaded",
)
"""A model that runs one request at a time. A thread of it fills a shared streamer; after a death it starts over."""
SHORT = Phase(
    "short",
    TINY.model,
    TINY.engine_args,
    prompts.TINY,
    in_flight=50,
    streams=150,
    duration_s=26,
    faults={
        "kill -9 gunicorn worker": 2,
        "kill -9 gunicorn master": 1,
        "SIGTERM gunicorn master": 1,
        "SIGHUP gunicorn master": 1,
        "kill -9 engine": 1,
        "SIGSTOP engine over its lease": 1,
        "kill -9 Valkey": 2,
        "SIGSTOP Valkey": 1,
        "Valkey out of memory": 1,
        "full disk, fsync always": 1,
        "full disk, fsync everysec": 1,
        "kill -9 nginx": 1,
    },
)


def run(phase, seed, folder, say):
    """Run one phase. The stack's logs stay in the folder."""
    result = Result(phase)
    started = time.monotonic()
    arena = Arena(folder, phase.app_dir, ENGINE_ARGS=phase.engine_args)
    arena.environ["MODEL"] = str(phase.model(arena.settings))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _break_off(arena))
    try:
        arena.start_all()
        result.start_s = time.monotonic() - started
        say(f"{phase.name}: everything is ready after {result.start_s:.0f} s")
        asyncio.run(_disturb(arena, phase, random.Random(f"{seed} {phase.name}"), result, say))
        _check_idle(arena, result)
    except AssertionError as error:
        result.problems.append(str(error))
    finally:
        arena.stop()
    result.duration_s = time.monotonic() - started
    return result


def _break_off(arena):
    """Exit immediately on a signal, because faults wait in threads for parts that will not recover."""
    arena.stop()
    os._exit(130)


async def _disturb(arena, phase, rng, result, say):
    probe = asyncio.create_task(_watch(result))
    client = Client(arena.url)
    try:
        expected = await _run_undisturbed(client, phase, result)
        say(f"{phase.name}: {len(expected)} undisturbed runs took {result.undisturbed_s:.0f} s")
        result.faults = faults.schedule(phase.faults, phase.duration_s, rng)
        topics = TopicCrowd(arena.url, random.Random(rng.random()))
        await topics.start()
        result.topics = topics
        crowd = Crowd(client, phase.prompts, expected)
        result.readers = crowd.readers
        arena.in_flight = lambda: crowd.in_flight
        dealing = asyncio.create_task(faults.Dealer(arena, say).deal(result.faults))
        busy = crowd.keep_busy(rng, phase.in_flight, phase.streams, 10 * phase.streams, dealing)
        try:
            await asyncio.wait_for(busy, phase.duration_s + BUSY_TIMEOUT_S)
        except TimeoutError:
            result.problems.append(
                f"{crowd.in_flight} streams were stuck after {len(crowd.readers)} readers had started"
            )
        await dealing
        say(f"{phase.name}: all faults are repaired, {crowd.in_flight} generations are open")
        result.drain_s = await crowd.drain(DRAIN_TIMEOUT_S)
        await topics.stop(DRAIN_TIMEOUT_S)
        for reader in result.readers:
            reader.judge_silence(result.lag_s)
    finally:
        probe.cancel()
        await client.close()


async def _run_undisturbed(client, phase, result):
    crowd = Crowd(client, phase.prompts)
    started = time.monotonic()
    expected = await crowd.run_each_once(UNDISTURBED_TIMEOUT_S)
    result.undisturbed_s = time.monotonic() - started
    violations = [violation for reader in crowd.readers for violation in reader.violations]
    if violations:
        raise AssertionError(f"the undisturbed run was not clean: {violations[:10]}")
    return expected


async def _watch(result):
    """Record the peak number of readers, and this process's event-loop lag, which limits how exact pauses are."""
    while True:
        due = time.monotonic() + PROBE_S
        await asyncio.sleep(PROBE_S)
        result.lag_s = max(result.lag_s, time.monotonic() - due)
        result.most_at_once = max(result.most_at_once, sum(not reader.is_over for reader in result.readers))


def _check_idle(arena, result):
    """Check that no stream, job or running generation is left."""
    try:
        arena.assert_idle()
    except AssertionError as error:
        result.problems.append(f"after all streams had ended: {error}")
