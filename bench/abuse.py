"""What attacks cost others: `python -m bench.abuse`. See also `--help`.

A service with API keys, two gunicorn workers and the scripted model. A client misbehaves in one way after another, from
a process of its own. Meanwhile a victim with another key reads a stream with an output every 50 ms, and starts short
generations, and /healthz is polled on the health port. Writes bench/results/abuse.json and prints a table.

A flood holds all of the engine's slots with generations that take a second each, so a victim's first token waits for
one of them to end: no more than a generation's service time.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import requests

from bench import load
from harness.callers import Caller, keys
from harness.sse_client import connect
from harness.stack import PROJECT_ROOT, Stack, free_port

RESULTS = Path(__file__).parent / "results" / "abuse.json"
SERVICE_S = 1.0
SLOTS = 32
PAUSE_MS = 50
CHECK_EVERY_S = 0.05
ATTACK_BEGINS_S = 3
HEAD = b"POST /generations HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"


class Attack:
    """A misbehaving client: asyncio, in its own process, until it is terminated."""

    def __init__(self, port, key):
        self.port, self.key = port, key.encode()

    async def open(self, data=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        writer.write(data)
        return reader, writer

    async def repeat(self, count, action):
        """So many clients at once, each of which begins anew when it is refused."""

        async def client():
            while True:
                with suppress(OSError, asyncio.IncompleteReadError):
                    await action()
                await asyncio.sleep(0.01)

        await asyncio.gather(*(client() for _ in range(count)))

    async def ask(self, request):
        """Send one request, and read the response."""
        reader, writer = await self.open(request)
        try:
            await reader.read()
        finally:
            writer.close()

    def post(self, body, key=None):
        head = HEAD % (key or self.key)
        return head + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def calm(self):
        await asyncio.Event().wait()

    async def idle_connections(self):
        async def wait():
            reader, _ = await self.open()
            await reader.read()

        await self.repeat(2000, wait)

    async def slow_bodies(self):
        async def trickle():
            _, writer = await self.open(HEAD % self.key + b"Content-Length: 100000\r\n\r\n{")
            while True:
                await asyncio.sleep(0.5)
                writer.write(b" ")
                await writer.drain()

        await self.repeat(1000, trickle)

    async def huge_bodies(self):
        body = b'{"texts":["' + b"x" * (4_000_000) + b'"]}'
        await self.repeat(8, lambda: self.ask(self.post(body)))

    async def bad_keys(self):
        request = self.post(b"{}", b"es-000000000000-" + b"0" * 48)
        await self.repeat(32, lambda: self.ask(request))

    async def stalled_readers(self):
        generation = await self.start({"texts": ["x" * 1000], "repeat": 1000})

        async def stall():
            path = f"/generations/{generation}/events"
            await self.open(
                b"GET %b HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n\r\n" % (path.encode(), self.key)
            )
            await asyncio.Event().wait()

        await self.repeat(500, stall)

    async def start(self, inputs):
        reader, writer = await self.open(self.post(json.dumps(inputs).encode()))
        answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])["id"]

    async def reconnect_storm(self):
        generation = await self.start({"texts": ["x"] * 20, "pause_ms": 1000})
        path = f"/generations/{generation}/events"
        request = b"GET %b HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n\r\n" % (path.encode(), self.key)

        async def come_and_go():
            reader, writer = await self.open(request)
            await reader.readuntil(b"\n\n")
            writer.close()

        await self.repeat(64, come_and_go)

    async def flood(self):
        body = json.dumps({"texts": ["x"], "pause_ms": int(SERVICE_S * 1000)}).encode()
        await self.repeat(64, lambda: self.ask(self.post(body)))


ATTACKS = [name for name, value in vars(Attack).items() if asyncio.iscoroutinefunction(value)]
ATTACKS = [name for name in ATTACKS if name not in ("open", "repeat", "ask", "start")]


class Sampler(threading.Thread):
    """Calls `sample`, which returns milliseconds, until `end`."""

    def __init__(self, sample, every_s=0.0):
        super().__init__(daemon=True)
        self._sample, self._every_s, self._over = sample, every_s, threading.Event()
        self.found, self.errors = [], 0

    def run(self):
        while not self._over.wait(self._every_s):
            try:
                self.found.append(self._sample())
            except (OSError, AssertionError, requests.RequestException):
                self.errors += 1

    def end(self):
        self._over.set()
        self.join()


class Victim:
    """Reads a stream, and notes when its outputs come."""

    def __init__(self, caller, seconds):
        self._caller = caller
        count = int((seconds + 10) * 1000 / PAUSE_MS)
        self._url = caller.stack.events_url(caller.start(texts=["x"] * count, pause_ms=PAUSE_MS))
        self._over, self._times = threading.Event(), []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with connect(self._url, headers=self._caller.headers) as stream:
            stream.read(self._note)

    def _note(self, _):
        """Called after each read from the socket."""
        self._times.append(time.perf_counter())
        return self._over.is_set()

    def end(self):
        """Returns the longest silence in ms."""
        self._over.set()
        self._thread.join()
        return max((later - earlier) * 1000 for earlier, later in pairwise(self._times))

    def first_token_ms(self):
        """Of a new generation."""
        started = time.perf_counter()
        with connect(f"{self._caller.stack.url}/stream?texts=a", headers=self._caller.headers) as stream:
            stream.read(lambda got: any(event.type in ("message", "busy") for event in got.events))
            assert stream.events[-1].type != "busy"
        return (time.perf_counter() - started) * 1000


def measure(caller, attack_key, attack, seconds):
    stack, session = caller.stack, requests.Session()
    health_url = f"http://127.0.0.1:{stack.settings.health_port}/healthz"

    def check():
        started = time.perf_counter()
        session.get(health_url, timeout=10).raise_for_status()
        return (time.perf_counter() - started) * 1000

    command = [sys.executable, "-m", "bench.abuse", "--attack", attack, "--port", str(stack.port), "--key", attack_key]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL) as attacker:
        time.sleep(ATTACK_BEGINS_S)
        victim = Victim(caller, seconds)
        health, first = samplers = Sampler(check, CHECK_EVERY_S), Sampler(victim.first_token_ms, CHECK_EVERY_S)
        for each in samplers:
            each.start()
        time.sleep(seconds)
        for each in samplers:
            each.end()
        silence_ms = victim.end()
        attacker.kill()
    return {
        "health_p50_ms": load.percentile(health.found, 50),
        "health_p99_ms": load.percentile(health.found, 99),
        "health_max_ms": max(health.found),
        "health_unanswered": health.errors,
        "victim_longest_silence_ms": silence_ms,
        "victim_first_token_p50_ms": load.percentile(first.found, 50),
        "victim_first_token_max_ms": max(first.found),
        "victim_refused": first.errors,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12, help="of each attack (12)")
    parser.add_argument("--only", choices=ATTACKS, help="one of the attacks")
    for internal in ("attack", "port", "key"):
        parser.add_argument(f"--{internal}", help=argparse.SUPPRESS)
    args = parser.parse_args()
    load.allow_files(8000)
    if args.attack:
        asyncio.run(getattr(Attack(int(args.port), args.key), args.attack)())
        return
    health_port, found = free_port(), {}
    for attack in [args.only] if args.only else ATTACKS:
        # Each begins with an empty queue.
        with tempfile.TemporaryDirectory() as folder:
            options = {"EVERSTREAM_ACCESS": "keys", "EVERSTREAM_HEALTH_PORT": str(health_port)}
            options |= {"EVERSTREAM_MAX_RUNNING": str(SLOTS), "EVERSTREAM_LOG_LEVEL": "warning"}
            stack = Stack(Path(folder), **options)
            try:
                stack.start()
                victim, attacker = Caller(stack, keys(stack, "add", "victim")), keys(stack, "add", "attacker")
                found[attack] = measure(victim, attacker, attack, args.seconds)
            finally:
                stack.stop()
        print(attack, found[attack], file=sys.stderr)
    if not args.only:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    show(found)


def show(found):
    print(
        "| attack | /healthz, median and longest, ms | victim's longest silence, ms "
        "| victim's first token, median and longest, ms |"
    )
    print("|---|---:|---:|---:|")
    for attack, row in found.items():
        unanswered = f", {row['health_unanswered']} unanswered" if row["health_unanswered"] else ""
        refused = f", {row['victim_refused']} refused" if row["victim_refused"] else ""
        print(
            f"| {attack.replace('_', ' ')} | {row['health_p50_ms']:.0f}, {row['health_max_ms']:.0f}{unanswered} "
            f"| {row['victim_longest_silence_ms']:.0f} "
            f"| {row['victim_first_token_p50_ms']:.0f}, {row['victim_first_token_max_ms']:.0f}{refused} |"
        )


if __name__ == "__main__":
    main()
