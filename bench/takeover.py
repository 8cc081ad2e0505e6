"""How fast another engine takes over when one dies with many generations: `python -m bench.takeover`, or `make bench`.

One engine runs them all; a second one is idle, and has room for them. The first is killed with SIGKILL. Measured from
the end of its lease: when the second has claimed all of them, and when it has fenced all of their logs, which is when
each goes on. Prints a table and writes bench/results/takeover.json.
"""

import argparse
import json
import secrets
import tempfile
import time
from pathlib import Path

import valkey

from everstream.log.keys import GROUP, Keys
from everstream.log.records import Job
from everstream.log.web_log import WebLog
from harness.stack import Stack, wait_for

RESULTS = Path(__file__).parent / "results" / "takeover.json"
LEASE_S = 10
"""The default."""


class Takeover:
    def __init__(self, stack, count):
        self._stack, self._count = stack, count
        self._client = valkey.Valkey.from_url(stack.settings.log_url)
        self._keys = Keys(stack.settings.namespace)
        self._generations = [secrets.token_hex(16) for _ in range(count)]

    def start(self):
        """Have the first engine run all of them."""
        web = WebLog(self._stack.settings)
        for generation in self._generations:
            web.submit(generation, Job({"texts": ["a "], "repeat": 10_000, "pause_ms": 1000}), "scripted", "")
        web.close()
        wait_for(lambda: self._has_claimed(1), what="the first engine's claims")
        wait_for(lambda: self._logs_with(b'["",'), what="output of all generations")

    def measure(self):
        """Seconds from the end of the lease, by the step."""
        self._stack.engines[0].kill()
        ended_at = time.monotonic() + LEASE_S
        steps = {"claimed": lambda: self._has_claimed(2), "fenced": lambda: self._logs_with(b"resumed")}
        return {step: self._time_of(condition) - ended_at for step, condition in steps.items()}

    def await_second(self):
        """Until another engine looks for jobs."""
        wait_for(lambda: len(self._client.xinfo_consumers(self._keys.jobs, GROUP)) == 2, what="the second engine")

    @staticmethod
    def _time_of(condition):
        wait_for(condition, what="the takeover")
        return time.monotonic()

    def _has_claimed(self, engine):
        """Whether one consumer has all jobs, and it is the `engine`-th."""
        pending = self._client.xpending(self._keys.jobs, GROUP) if self._client.exists(self._keys.jobs) else {}
        consumers = {each["name"]: each["pending"] for each in pending.get("consumers", ())}
        if engine == 1:
            self._first = set(consumers)
            return sum(consumers.values()) == self._count
        return sum(n for name, n in consumers.items() if name not in self._first) == self._count

    def _logs_with(self, part):
        logs = self._client.mget([self._keys.log(generation) for generation in self._generations])
        return all(log and part in log for log in logs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generations", type=int, default=1000)
    args = parser.parse_args()
    options = {"EVERSTREAM_MAX_RUNNING": args.generations, "EVERSTREAM_MAX_QUEUED": args.generations}
    options |= {"EVERSTREAM_LEASE_S": LEASE_S, "EVERSTREAM_ABANDON_AFTER_S": 600}
    with tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder:
        stack = Stack(Path(folder), **{name: str(value) for name, value in options.items()})
        try:
            stack.start_valkey()
            stack.start_engine()
            takeover = Takeover(stack, args.generations)
            takeover.start()
            stack.start_engine()
            takeover.await_second()
            found = takeover.measure()
        finally:
            stack.stop()
    print(f"| {args.generations} generations of a killed engine | s after the end of its lease |\n|---|---:|")
    for step, seconds in found.items():
        print(f"| the last one {step} | {seconds:.2f} |")
    RESULTS.write_text(json.dumps({"options": vars(args), "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
