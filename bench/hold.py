"""How many live streams one web worker holds: `python -m bench.hold`, or `make bench`.

Real gunicorn with one worker and Valkey; no engine, as a process of this benchmark claims the generations and says
their tokens: each of the few that are active says one every so often, with the time in it. The load generator holds a
stream on each generation, and takes the time from the append to what its socket brought. Out: a table, and
bench/results/hold.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from array import array
from pathlib import Path

import psutil

from bench import load
from everstream import log
from everstream.engine_log import Batch, EngineLog
from everstream.web_log import WebLog
from tests.stack import Stack

RESULTS = Path(__file__).parent / "results" / "hold.json"
CLAIMS_AT_ONCE = 500


class Talker:
    """An engine of this benchmark's own: it has claimed all generations, and says what it is told to."""

    def __init__(self, settings, generations):
        self._log = EngineLog(settings, "bench")
        self._next = dict.fromkeys(generations, 1)

    async def claim(self):
        claimed = 0
        async with asyncio.timeout(load.STUCK_S):
            while claimed < len(self._next):
                claimed += len(await self._log.claim(CLAIMS_AT_ONCE))

    async def say(self, generations, event="", data=None):
        """One entry each, in one append: by default the time."""
        batches = []
        for generation in generations:
            text = data or {"text": str(time.perf_counter_ns())}
            entry = log.encode_entry(event, text), b""
            batches.append(Batch(generation, self._next[generation], [entry], event))
            self._next[generation] += 1
        assert await self._log.append(batches) == set()

    async def keep_talking(self, active, every_s, until):
        """Each of `active` once every so often, spread over that time."""
        turns = 20
        while not until():
            for turn in range(turns):
                await self.say(active[turn::turns])
                await asyncio.sleep(every_s / turns)


def talk(settings, generations, active, every_s, stop, said):  # noqa: PLR0913, PLR0917 - what a process is handed
    """The process that the tokens come from. Ends all generations when it is told to stop."""

    async def main():
        talker = Talker(settings, generations)
        await talker.claim()
        said.put("claimed")
        await talker.keep_talking(active, every_s, stop.is_set)
        for at in range(0, len(generations), CLAIMS_AT_ONCE):
            await talker.say(generations[at : at + CLAIMS_AT_ONCE], "done", {"finish_reason": "stop", "usage": None})
        said.put(sum(talker._next.values()) - len(generations))

    asyncio.run(main())


def start_generations(settings, count):
    web = WebLog(settings)
    generations = [f"{n:08x}{random.getrandbits(96):024x}" for n in range(count)]
    for generation in generations:
        web.submit(generation, log.Job({}), "model")
    web.close()
    return generations


class Late:
    """Milliseconds from an append to its arrival, counted from when all streams are open."""

    def __init__(self):
        self.ms = array("d")
        self.counts = False

    def __call__(self, _stream, data, now):
        if self.counts:
            self.ms.append((now - int(data[9:-2]) / 1e9) * 1000)


def open_all(loader, generations, late, on_cut):
    streams = []
    for generation in generations:
        stream = load.Stream(load.Api("events"), array("d"), late, generation)
        loader.start(stream, "GET", f"/generations/{generation}/events")
        streams.append(stream)
        loader.poll_until(lambda: load.few_connect(streams), on_cut)
    loader.poll_until(lambda: all(stream.status for stream in streams), on_cut)
    return streams


def resident_kb(pid):
    """What the process has to itself, in user space."""
    return psutil.Process(pid).memory_full_info().uss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=15_000)
    parser.add_argument("--active", type=float, default=0.01, help="share of them that is active (0.01)")
    parser.add_argument("--every-s", type=float, default=0.5, help="between two tokens of an active one (0.5)")
    parser.add_argument("--seconds", type=float, default=300, help="to hold them (300)")
    wanted = parser.parse_args()
    measure(hold, wanted, "one web worker", RESULTS, WEB_CONCURRENCY="1")


def measure(what, wanted, title, results, **settings):
    """Start Valkey and the web part for so many streams, and report what was found; `bench.kill` calls, too."""
    load.allow_files(wanted.streams + 500)
    settings |= {
        "EVERSTREAM_MAX_STREAMS": str(wanted.streams + 100),
        "EVERSTREAM_MAX_QUEUED": str(2 * wanted.streams),
        "EVERSTREAM_HEARTBEAT_S": "15",
    }
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), **settings)
        try:
            stack.start_valkey()
            stack.start_web()
            found = what(stack, wanted)
        finally:
            stack.stop()
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"options": vars(wanted), "found": found}, indent=1) + "\n")
    print(f"| {title} | |\n|---|---:|")
    shown = {name: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for name, value in found.items()}
    print("\n".join(f"| {name} | {value} |" for name, value in shown.items()))


def hold(stack, wanted):
    generations = start_generations(stack.settings, wanted.streams)
    active = generations[: max(1, int(wanted.streams * wanted.active))]
    stop, said = multiprocessing.Event(), multiprocessing.Queue()
    talker = multiprocessing.Process(
        target=talk, args=(stack.settings, generations, active, wanted.every_s, stop, said), daemon=True
    )
    talker.start()
    said.get(timeout=load.STUCK_S)
    (worker,) = stack.workers()
    loader, late, before_kb = load.Load(stack.url), Late(), resident_kb(worker)
    started = time.perf_counter()
    streams = open_all(loader, generations, late, loader.count_cut)
    opened_s = time.perf_counter() - started
    late.counts = True
    cpu_before, until = sum(psutil.Process(worker).cpu_times()[:2]), time.perf_counter() + wanted.seconds
    while time.perf_counter() < until:
        loader.poll(0.5, loader.count_cut)
    cpu = (sum(psutil.Process(worker).cpu_times()[:2]) - cpu_before) / wanted.seconds
    held, after_kb = len(loader.open), resident_kb(worker)
    late.counts = False
    stop.set()
    loader.poll_until(lambda: not loader.open)
    tokens = said.get(timeout=load.STUCK_S) - len(generations)
    return {
        "streams held to the end": held,
        "dropped, or told anything wrong": sum(loader.wrong.values()),
        "tokens said while they were open, and before": tokens,
        "tokens not delivered": tokens - sum(stream.n - 1 for stream in streams),
        "KB of user-space memory per stream": (after_kb - before_kb) / wanted.streams,
        "opened within, s": opened_s,
        "append to socket, median ms": statistics.median(late.ms),
        "append to socket, p99 ms": load.percentile(late.ms, 99),
        "append to socket, longest ms": max(late.ms),
        "CPU of the worker, of one core": cpu,
    }


if __name__ == "__main__":
    main()
