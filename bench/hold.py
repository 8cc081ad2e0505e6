"""How many live streams one web worker holds: `python -m bench.hold`, or `make bench`.

Uses real gunicorn with one worker, and Valkey. In place of an engine, a process of this benchmark claims the
generations and appends timestamped tokens to the few active ones at a fixed interval. The load generator holds one
stream per generation and measures the time from the append to the arrival at its socket. Prints a table and writes
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
from everstream.engine.appender import Writer
from everstream.log.engine_log import EngineLog
from everstream.log.entries import encode_entry
from everstream.log.records import Job
from everstream.log.web_log import WebLog
from harness.stack import Stack

RESULTS = Path(__file__).parent / "results" / "hold.json"
CLAIMS_AT_ONCE = 500


def _ignore(_):
    pass


class Talker:
    """A stand-in for the engine: claims all generations and appends what it is told to."""

    def __init__(self, settings, generations):
        self._log = EngineLog(settings, "bench")
        self._writers = {generation: Writer(generation, _ignore, _ignore) for generation in generations}

    @property
    def said(self):
        """How many entries, in all."""
        return sum(writer.count for writer in self._writers.values())

    async def claim(self):
        claimed = 0
        async with asyncio.timeout(load.STUCK_S):
            while claimed < len(self._writers):
                claimed += len(await self._log.claim(CLAIMS_AT_ONCE))

    async def say(self, generations, event="", data=None):
        """Append one entry per generation, in one call. By default it holds the current time."""
        batches = []
        for generation in generations:
            writer = self._writers[generation]
            if event:
                writer.end(event, data)
            else:
                writer.put(encode_entry("", data or {"text": str(time.perf_counter_ns())}))
            batches.append(writer.take())
        assert await self._log.append(batches) == set()

    async def keep_talking(self, active, every_s, until):
        """Append to each of `active` once per `every_s`, spread over that interval."""
        turns = 20
        while not until():
            for turn in range(turns):
                await self.say(active[turn::turns])
                await asyncio.sleep(every_s / turns)


def talk(settings, generations, active, every_s, stop, reports):  # noqa: PLR0913, PLR0917 - the arguments of a process
    """The process that generates the tokens. Ends all generations when told to stop."""

    async def main():
        talker = Talker(settings, generations)
        await talker.claim()
        reports.put("claimed")
        await talker.keep_talking(active, every_s, stop.is_set)
        for at in range(0, len(generations), CLAIMS_AT_ONCE):
            await talker.say(generations[at : at + CLAIMS_AT_ONCE], "done", {"finish_reason": "stop", "usage": None})
        reports.put(talker.said)

    asyncio.run(main())


def start_generations(settings, count):
    web = WebLog(settings)
    generations = [f"{n:08x}{random.getrandbits(96):024x}" for n in range(count)]
    for generation in generations:
        web.submit(generation, Job({}), "model", "")
    web.close()
    return generations


class Late:
    """Records the milliseconds from append to arrival, once all streams are open."""

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
    """The process's private user-space memory."""
    return psutil.Process(pid).memory_full_info().uss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=15_000)
    parser.add_argument("--active", type=float, default=0.01, help="fraction of active streams (0.01)")
    parser.add_argument("--every-s", type=float, default=0.5, help="interval between tokens of an active stream (0.5)")
    parser.add_argument("--seconds", type=float, default=300, help="how long to hold the streams (300)")
    args = parser.parse_args()
    measure(hold, args, "one web worker", RESULTS, WEB_CONCURRENCY="1")


def measure(what, args, title, results, **settings):
    """Start Valkey and the web workers, run `what` and report its results. Also used by `bench.kill`."""
    load.allow_files(args.streams + 500)
    settings |= {
        "EVERSTREAM_MAX_STREAMS": str(args.streams + 100),
        "EVERSTREAM_MAX_QUEUED": str(2 * args.streams),
        "EVERSTREAM_HEARTBEAT_S": "15",
    }
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), **settings)
        try:
            stack.start_valkey()
            stack.start_web()
            found = what(stack, args)
        finally:
            stack.stop()
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps({"options": vars(args), "found": found}, indent=1) + "\n")
    print(f"| {title} | |\n|---|---:|")
    shown = {name: f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for name, value in found.items()}
    print("\n".join(f"| {name} | {value} |" for name, value in shown.items()))


def hold(stack, args):
    generations = start_generations(stack.settings, args.streams)
    active = generations[: max(1, int(args.streams * args.active))]
    stop, reports = multiprocessing.Event(), multiprocessing.Queue()
    talker = multiprocessing.Process(
        target=talk, args=(stack.settings, generations, active, args.every_s, stop, reports), daemon=True
    )
    talker.start()
    reports.get(timeout=load.STUCK_S)
    (worker,) = stack.workers()
    loader, late, before_kb = load.Load(stack.url), Late(), resident_kb(worker)
    started = time.perf_counter()
    streams = open_all(loader, generations, late, loader.count_cut)
    opened_s = time.perf_counter() - started
    late.counts = True
    cpu_before, until = sum(psutil.Process(worker).cpu_times()[:2]), time.perf_counter() + args.seconds
    while time.perf_counter() < until:
        loader.poll(0.5, loader.count_cut)
    cpu = (sum(psutil.Process(worker).cpu_times()[:2]) - cpu_before) / args.seconds
    held, after_kb = len(loader.open), resident_kb(worker)
    late.counts = False
    stop.set()
    loader.poll_until(lambda: not loader.open)
    tokens = reports.get(timeout=load.STUCK_S) - len(generations)
    return {
        "streams held to the end": held,
        "dropped, or told anything wrong": sum(loader.wrong.values()),
        "tokens said while they were open, and before": tokens,
        "tokens not delivered": tokens - sum(stream.n - 1 for stream in streams),
        "KB of user-space memory per stream": (after_kb - before_kb) / args.streams,
        "opened within, s": opened_s,
        "append to socket, median ms": statistics.median(late.ms),
        "append to socket, p99 ms": load.percentile(late.ms, 99),
        "append to socket, longest ms": max(late.ms),
        "CPU of the worker, of one core": cpu,
    }


if __name__ == "__main__":
    main()
