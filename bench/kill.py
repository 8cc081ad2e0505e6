"""How fast the streams of a killed web worker resume: `python -m bench.kill`, or `make bench`.

Like `bench.hold`, with two workers. When both have their share of the streams, kills one with SIGKILL. Its clients
behave like EventSource: they reconnect after the `retry` delay, with the last id they saw. Some streams are active
meanwhile. Prints a table and writes bench/results/kill.json.
"""

import argparse
import heapq
import itertools
import multiprocessing
import os
import signal
import statistics
import time
from array import array
from pathlib import Path

import psutil

from bench import load
from bench.hold import measure, start_generations, talk
from harness.stack import tries

CONNECTS_PER_POLL = 10
RESULTS = Path(__file__).parent / "results" / "kill.json"


class Client(load.Stream):
    """Records when its connection was answered."""

    __slots__ = ("answered_at",)

    def _parse_head(self, head, body):
        super()._parse_head(head, body)
        self.answered_at = time.perf_counter()


class Clients:
    """EventSources: each opens a stream on its generation, and reconnects when it is cut."""

    def __init__(self, url):
        self.load = load.Load(url)
        self.streams = []
        self.cut = []
        self._due = []
        self._order = itertools.count()

    def open_all(self, generations):
        for generation in generations:
            stream = Client(load.Api("events"), array("d"), key=generation)
            self.streams.append(stream)
            self._connect(stream)
            self.poll_until(lambda: load.few_connect(self.streams))
        self.poll_until(lambda: all(stream.status for stream in self.streams))

    def poll_until(self, condition):
        for _ in tries(load.STUCK_S, "what the clients wait for"):
            if condition():
                break
            self.poll()

    def _connect(self, stream):
        seen = f"Last-Event-ID: {stream.last_id.decode()}\r\n" if stream.last_id else ""
        self.load.start(stream, "GET", f"/generations/{stream.key}/events", headers=seen)

    def poll(self):
        wait_s = self._due[0][0] - time.perf_counter() if self._due else 0.5
        self.load.poll(max(0, min(wait_s, 0.5)), self._on_cut)
        # A few at a time, so that responses are not read late.
        for _ in range(CONNECTS_PER_POLL):
            if self._due and self._due[0][0] <= time.perf_counter():
                self._connect(heapq.heappop(self._due)[2])

    def _on_cut(self, stream):
        stream.status = 0
        self.cut.append(stream)
        heapq.heappush(self._due, (time.perf_counter() + stream.retry_ms / 1000, next(self._order), stream))


def connections(pid):
    return sum(each.status == "ESTABLISHED" for each in psutil.Process(pid).net_connections("tcp"))


def kill(stack, args):
    generations = start_generations(stack.settings, args.streams)
    stop, reports = multiprocessing.Event(), multiprocessing.Queue()
    active = generations[: max(1, args.streams // 100)]
    talker = multiprocessing.Process(
        target=talk, args=(stack.settings, generations, active, 0.5, stop, reports), daemon=True
    )
    talker.start()
    reports.get(timeout=load.STUCK_S)
    clients = Clients(stack.url)
    clients.open_all(generations)
    victim = max(stack.workers(), key=connections)
    held = connections(victim)
    killed_at = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    clients.poll_until(lambda: len(clients.cut) >= held and all(stream.status for stream in clients.cut))
    back_s = [stream.answered_at - killed_at for stream in clients.cut]
    stop.set()
    clients.poll_until(lambda: all(stream.ended for stream in clients.streams))
    entries = reports.get(timeout=load.STUCK_S)
    return {
        "streams of the killed worker": held,
        "cut, in all": len(clients.cut),
        "back: the first after, s": min(back_s),
        "back: half of them after, s": statistics.median(back_s),
        "back: all after, s": max(back_s),
        "lost": entries - sum(stream.n for stream in clients.streams),
        "repeated, or told anything wrong": sum(clients.load.wrong.values()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000, help="in total, over both workers")
    args = parser.parse_args()
    title = "one of two web workers killed with -9"
    measure(kill, args, title, RESULTS, WEB_CONCURRENCY="2", EVERSTREAM_RETRY_MS="1000")


if __name__ == "__main__":
    main()
