"""The effect of overlong prompts on an open stream: `python -m bench.oversize`. See also `--help`.

Uses a real stack with the demo model, or the service at `--url`. For 25 s, 120 clients post prompts of 200,000
characters, each one second after its last response, while one stream is read and /readyz is polled. First all clients
share one address, then each has its own, set through X-Forwarded-For (with `--url` that needs EVERSTREAM_PROXIES=1).
Prints tables.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from itertools import pairwise, product
from pathlib import Path
from urllib.parse import urlsplit

from everstream.settings import PROJECT_ROOT
from harness.stack import running_stack

CLIENTS = 120
PAUSE_S = 1
CALM_S = 10
FLOOD_S = 25
ASK_EVERY_S = 0.25
UNTIL_S = 300
TEXTS = {"words": "word " * 40_000, "Chinese": "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(200_000))}
"""200,000 characters each: 40,000 and 535,000 tokens of the demo model."""


class Service:
    def __init__(self, url):
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80

    async def ask(self, method, path, body=b"", client="192.0.2.1"):
        """Send a request. Returns the status and body of the response."""
        stream, sink = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        try:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {client}\r\nConnection: close\r\n"
            sink.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await sink.drain()
            answer = await stream.read()
        finally:
            sink.close()
        status, _, rest = answer.partition(b"\r\n")
        return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]

    async def tokens(self, token_times):
        """Read one long answer, and append the arrival time of each token to `token_times`."""
        stream, sink = await asyncio.open_connection(self.host, self.port)
        query = "prompt=Tell+me+all+you+know&max_tokens=8000&ignore_eos=true"
        sink.write(f"GET /stream?{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        try:
            while line := await stream.readline():
                if line.startswith(b'data: {"generation"'):
                    generation = json.loads(line[6:])["generation"]
                elif line.startswith(b'data: {"text"'):
                    token_times.append(time.monotonic())
        finally:
            sink.close()
            # Otherwise it would run until it counts as abandoned.
            await self.ask("DELETE", f"/generations/{generation}")


class Flood:
    def __init__(self, service, text, addresses):
        self._service, self._body = service, json.dumps({"prompt": text}, ensure_ascii=False).encode()
        self._addresses = [f"198.51.100.{n}" for n in range(addresses)]
        self.answers, self.slowest_s = Counter(), 0.0

    async def run(self):
        async with asyncio.timeout(UNTIL_S):
            await asyncio.gather(*(self._client(n, time.monotonic() + FLOOD_S) for n in range(CLIENTS)))

    async def _client(self, n, end_at):
        address = self._addresses[n % len(self._addresses)]
        while time.monotonic() < end_at:
            began_at = time.monotonic()
            self.answers[await self._post(address)] += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
            await asyncio.sleep(PAUSE_S)

    async def _post(self, address):
        try:
            status, body = await self._service.ask("POST", "/generations", self._body, address)
        except (OSError, IndexError) as error:
            return type(error).__name__
        return "accepted" if status == 201 else f"{status} {json.loads(body)['error']['code']}"


async def watch_readiness(service, statuses):
    while True:
        statuses[(await service.ask("GET", "/readyz"))[0]] += 1
        await asyncio.sleep(ASK_EVERY_S)


def pace(token_times, since, until):
    """Returns the longest gap and the tokens per second in an interval of a stream."""
    times = [since, *(at for at in token_times if since < at < until), until]
    return max(b - a for a, b in pairwise(times)), (len(times) - 2) / (until - since)


async def measure(url, text, addresses):
    service, token_times, statuses, flood = Service(url), [], Counter(), Flood(Service(url), text, addresses)
    tasks = [asyncio.create_task(service.tokens(token_times))]
    async with asyncio.timeout(UNTIL_S):
        while len(token_times) < 10:
            await asyncio.sleep(0.1)
    calm_at = time.monotonic()
    await asyncio.sleep(CALM_S)
    tasks.append(asyncio.create_task(watch_readiness(service, statuses)))
    flood_at = time.monotonic()
    await flood.run()
    over_at = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    calm, flooded = pace(token_times, calm_at, flood_at), pace(token_times, flood_at, over_at)
    return {
        "responses": ", ".join(f"{count} x {what}" for what, count in flood.answers.most_common()),
        "slowest response, s": f"{flood.slowest_s:.2f}",
        "the open stream's longest gap, s (before)": f"{flooded[0]:.2f} ({calm[0]:.2f})",
        "its tokens/s (before)": f"{flooded[1]:.1f} ({calm[1]:.1f})",
        "/readyz": ", ".join(f"{count} x {status}" for status, count in statuses.most_common()),
    }


def report(url, texts):
    for name, addresses in product(texts, (1, CLIENTS)):
        found = asyncio.run(measure(url, TEXTS[name], addresses))
        origin = "one address" if addresses == 1 else "one address each"
        print(f"| {CLIENTS} clients, {origin}, 200,000 characters of {name} | |\n|---|---|")
        for row, value in found.items():
            print(f"| {row} | {value} |")
        print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running service, with a model of 8,192 tokens")
    parser.add_argument("--text", choices=TEXTS, action="append", help="default: all")
    args = parser.parse_args()
    if args.url:
        report(args.url, args.text or TEXTS)
        return
    with tempfile.TemporaryDirectory() as folder:
        # The defaults; the tests' stack uses shorter ones.
        settings = {"EVERSTREAM_LEASE_S": "10", "EVERSTREAM_HEARTBEAT_S": "15", "EVERSTREAM_PROXIES": "1"}
        with running_stack(Path(folder), app_dir=PROJECT_ROOT, **settings) as stack:
            report(stack.url, args.text or TEXTS)


if __name__ == "__main__":
    main()
