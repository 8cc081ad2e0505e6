"""Fault injection: one function per kind of fault, and a table of them.

In: the arena, and a `Fault` from the seeded schedule. Out: the fault, with the number of streams it hit and the time of
the repair. Each function injects and repairs the fault; it blocks, and runs in its own thread. `Dealer` is asyncio. A
fault locks the parts it breaks until they work again, so faults of different parts can overlap, but faults of the same
part can't.
"""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass

import psutil
import valkey

from chaos.arena import ENGINES, HEALING_TIMEOUT_S, LEASE_S, Arena
from harness.stack import command_line, wait_for

BUSY_TIMEOUT_S = 10
FAMILY_TIMEOUT_S = 30
ENGINE_START_S = 25


@dataclass
class Fault:
    """`streams`: how many it hit, or None if it broke nothing. Times are relative to the start of the schedule."""

    kind: str
    at_s: float
    engine: str
    rng: random.Random
    struck_at_s: float = 0.0
    healed_at_s: float = 0.0
    streams: int | None = None
    error: str = ""

    def __str__(self):
        name = f"{self.kind} ({self.engine})" if "engine" in KINDS[self.kind].breaks else self.kind
        text = f"{name}, {self.struck_at_s:.1f} to {self.healed_at_s:.1f} s: hit {self.streams or 0} streams"
        return text + (f", ERROR: {self.error}" if self.error else "")

    @property
    def hit(self):
        return bool(self.streams)


def kill_worker(arena, fault):
    workers = arena.gunicorn_workers()
    victim = fault.rng.choice(workers)
    streams = arena.connections(victim)
    victim.kill()
    wait_for(lambda: victim not in arena.gunicorn_workers() and len(arena.gunicorn_workers()) == len(workers))
    return streams


def signal_master(number):
    def strike(arena, fault):
        master, streams = arena.gunicorn(), arena.in_flight()
        master.send_signal(number)
        arena.wait_web(other_than=master.pid)
        return streams

    return strike


def reload_master(arena, fault):
    workers, streams = arena.gunicorn_workers(), arena.in_flight()
    arena.gunicorn().send_signal(signal.SIGHUP)
    fault.error = _bury(workers)
    return streams


def kill_engine(arena, fault):
    return _break_engine(arena, fault, lambda engine: engine)


def kill_child(words):
    """Kill the engine's descendant whose command line contains `words`; the engine then exits by itself."""

    def strike(arena, fault):
        return _break_engine(arena, fault, lambda engine: _child(engine, words))

    return strike


def _child(engine, words):
    (child,) = [each for each in engine.children(recursive=True) if words in command_line(each)]
    return child


def _break_engine(arena, fault, victim_of):
    streams, engine = _when_busy(arena, fault.engine), arena.engine(fault.engine)
    family = [engine, *engine.children(recursive=True)]
    victim_of(engine).kill()
    fault.error = _bury(family)
    if fault.engine == "b":
        time.sleep(fault.rng.uniform(0, 2))
        arena.start_b()
    arena.wait_engine(fault.engine, other_than=engine.pid)
    return streams


def _bury(family):
    """Wait for all to exit. Kill and report survivors, so that the run can continue."""
    survivors = psutil.wait_procs(family, timeout=FAMILY_TIMEOUT_S)[1]
    report = "".join(f"{command_line(each)[:80]} (pid {each.pid}) did not exit; " for each in survivors)
    for process in survivors:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return report


def _when_busy(arena, name):
    """Wait until the engine has generations and return how many; 0 if it stays idle."""
    with suppress(AssertionError):
        return wait_for(lambda: arena.leases_of(name), BUSY_TIMEOUT_S)
    return 0


def freeze_engine(arena, fault):
    """Suspend it for longer than the lease: it wakes up as a zombie whose work others have taken over."""
    streams, engine = _when_busy(arena, fault.engine), arena.engine(fault.engine)
    _freeze(engine, fault.rng.uniform(1.2, 2.5) * LEASE_S)
    return streams


def _freeze(process, seconds):
    process.suspend()
    try:
        time.sleep(seconds)
    finally:
        process.resume()


def kill_valkey(arena, fault):
    streams = arena.in_flight()
    arena.valkey.kill()
    _revive_valkey(arena, fault)
    return streams


def _revive_valkey(arena, fault):
    time.sleep(fault.rng.uniform(0, 2))
    arena.start_valkey()


def freeze_valkey(least_s, most_s):
    def strike(arena, fault):
        streams = arena.in_flight()
        _freeze(psutil.Process(arena.valkey.pid), fault.rng.uniform(least_s, most_s))
        return streams

    return strike


def fill_memory(arena, fault):
    with arena.valkey_client() as client, _configured(client, "maxmemory", 1):
        streams, refused = arena.in_flight(), _refuses(client)
        time.sleep(fault.rng.uniform(2, 5))
    return streams if refused else None


def fill_disk(arena, fault):
    """Under `appendfsync always`, Valkey exits when it can't write to its file."""
    streams = arena.in_flight()
    with _file_at_its_limit(arena):
        wait_for(lambda: arena.valkey.popen.poll() is not None, what="Valkey to exit on a full disk")
    _revive_valkey(arena, fault)
    return streams


def fill_disk_everysec(arena, fault):
    """Under `appendfsync everysec`, Valkey keeps running and refuses writes."""
    with arena.valkey_client() as client, _configured(client, "appendfsync", "everysec"):
        streams = arena.in_flight()
        with _file_at_its_limit(arena):
            wait_for(lambda: _refuses(client), what="a refused write on a full disk")
            time.sleep(fault.rng.uniform(2, 5))
        wait_for(lambda: not _refuses(client), what="a successful write after space was freed")
    return streams


@contextmanager
def _configured(client, name, value):
    before = client.config_get(name)[name]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def _refuses(client):
    try:
        client.set("chaos", "x")
    except valkey.exceptions.ResponseError:
        return True
    return False


@contextmanager
def _file_at_its_limit(arena):
    """Keep Valkey's append-only file from growing."""
    process = psutil.Process(arena.valkey.pid)
    files = (arena.settings.state_path / "appendonlydir").glob("*.incr.aof")
    limit_bytes = max(file.stat().st_size for file in files)
    soft, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))


def kill_nginx(arena, fault):
    """Kill its workers too, which would keep serving as orphans."""
    streams = arena.in_flight()
    arena.nginx.stop()
    time.sleep(fault.rng.uniform(0, 1))
    arena.start_nginx()
    return streams


def kill_supervisor(arena, fault):
    family, streams, engine = arena.family(), arena.in_flight(), arena.engine("a")
    arena.supervisor.kill()
    fault.error = _bury(family)
    time.sleep(fault.rng.uniform(0, 2))
    arena.launch(HEALING_TIMEOUT_S)
    arena.wait_engine("a", other_than=engine.pid)
    return streams


@dataclass(frozen=True)
class Kind:
    """`breaks`: the parts it locks until they work again. `engine`: the only engine it applies to."""

    strike: Callable[[Arena, Fault], int | None]
    breaks: tuple[str, ...]
    is_kill: bool = False
    engine: str | None = None

    @property
    def is_slow(self):
        """Whether the repair is slow, because an engine has to start."""
        return self.is_kill and "engine" in self.breaks


KINDS = {
    "kill -9 gunicorn worker": Kind(kill_worker, ("web",), is_kill=True),
    "kill -9 gunicorn master": Kind(signal_master(signal.SIGKILL), ("web",), is_kill=True),
    "SIGTERM gunicorn master": Kind(signal_master(signal.SIGTERM), ("web",)),
    "SIGHUP gunicorn master": Kind(reload_master, ("web",)),
    "kill -9 engine": Kind(kill_engine, ("engine",), is_kill=True),
    "kill -9 EngineCore": Kind(kill_child("VLLM::EngineCore"), ("engine",), is_kill=True),
    "kill -9 vLLM worker": Kind(kill_child("VLLM::Worker"), ("engine",), is_kill=True, engine="b"),
    "SIGSTOP engine over its lease": Kind(freeze_engine, ("engine",)),
    "kill -9 Valkey": Kind(kill_valkey, ("valkey",), is_kill=True),
    "SIGSTOP Valkey": Kind(freeze_valkey(2, 6), ("valkey",)),
    "SIGSTOP Valkey for 20 s": Kind(freeze_valkey(20, 20), ("valkey",)),
    "Valkey out of memory": Kind(fill_memory, ("valkey",)),
    "full disk, fsync always": Kind(fill_disk, ("valkey",)),
    "full disk, fsync everysec": Kind(fill_disk_everysec, ("valkey",)),
    "kill -9 nginx": Kind(kill_nginx, ("nginx",), is_kill=True),
    "kill -9 supervisor": Kind(kill_supervisor, ("web", "engine"), is_kill=True, engine="a"),
}


def schedule(counts, duration_s, rng):
    """Draw the faults, sorted by time. Those that restart an engine, which is slow, are spread out separately."""
    faults = []
    for slow in (True, False):
        kinds = [kind for kind, count in counts.items() if slow == KINDS[kind].is_slow for _ in range(count)]
        rng.shuffle(kinds)
        first = rng.randrange(len(ENGINES))
        # Early enough for the engine to be back when the other faults are over.
        span_s = max(duration_s - ENGINE_START_S, 1) if slow else duration_s
        for n, kind in enumerate(kinds):
            engine = KINDS[kind].engine or ENGINES[(first + n) % len(ENGINES)]
            at_s = (n + rng.random()) * span_s / len(kinds)
            faults.append(Fault(kind, at_s, engine, random.Random(rng.random())))
    return sorted(faults, key=lambda fault: fault.at_s)


class Dealer:
    """Injects the faults of a schedule, each at its time and once its parts work."""

    def __init__(self, arena, say):
        self._arena = arena
        self._say = say
        self._started_at = time.monotonic()
        self._parts = {}

    async def deal(self, faults):
        await asyncio.gather(*(self._deal_one(fault) for fault in faults))

    async def _deal_one(self, fault):
        await asyncio.sleep(fault.at_s)
        kind = KINDS[fault.kind]
        # Lock in a fixed order, to avoid deadlock.
        parts = sorted(f"engine {fault.engine}" if part == "engine" else part for part in kind.breaks)
        async with AsyncExitStack() as held:
            locks = [self._parts.setdefault(part, asyncio.Lock()) for part in parts]
            for lock in locks:
                await held.enter_async_context(lock)
            fault.struck_at_s = self._elapsed_s()
            try:
                fault.streams = await asyncio.to_thread(kind.strike, self._arena, fault)
            except Exception as error:
                fault.error = f"{type(error).__name__}: {error}"
            fault.healed_at_s = self._elapsed_s()
            self._say(fault)

    def _elapsed_s(self):
        return time.monotonic() - self._started_at
