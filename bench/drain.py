"""How 1,000 open streams leave stopping workers and reconnect: `python -m bench.drain`, or `make bench`.

Uses real gunicorn with two workers, the scripted test model, and readers that behave like EventSource. Sends SIGHUP,
then SIGTERM followed by a restart. Prints a table.
"""

import asyncio
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

from harness.sse_client import Decoder
from harness.stack import Stack, wait_for

STREAMS = 1000
GENERATIONS = 50
UNTIL_S = 300


class Reader:
    """One EventSource: stays open until it is cut, then reconnects after the `retry` delay."""

    def __init__(self, port, generation):
        self.port, self.generation = port, generation
        self.decoder = Decoder()
        self.opened_at = self.ended_at = None
        self.refused = 0

    async def run(self):
        while True:
            try:
                await self._read_once()
            except (ConnectionError, asyncio.IncompleteReadError):
                self.refused += 1
            await asyncio.sleep((self.decoder.retry_ms or 1000) / 1000)

    async def _read_once(self):
        stream, sink = await asyncio.open_connection("127.0.0.1", self.port)
        last_id = f"Last-Event-ID: {self.decoder.last_id}\r\n" if self.decoder.last_id else ""
        address = f"/generations/{self.generation}/events"
        sink.write(f"GET {address} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{last_id}\r\n".encode())
        try:
            head = await stream.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            self.opened_at = time.monotonic()
            while size := int(await stream.readline(), 16):
                self.decoder.feed((await stream.readexactly(size + 2))[:-2])
            self.ended_at = time.monotonic()
        finally:
            sink.close()


async def until(readers, condition):
    async with asyncio.timeout(UNTIL_S):
        while not all(condition(reader) for reader in readers):
            await asyncio.sleep(0.01)


async def disturbed(readers, disturb):
    """What the readers saw, in seconds after the signal."""
    signalled_at = time.monotonic()
    disturb()
    await until(readers, lambda reader: reader.ended_at and reader.ended_at > signalled_at)
    await until(readers, lambda reader: reader.opened_at > reader.ended_at)
    reconnect_s = [reader.opened_at - signalled_at for reader in readers]
    return {
        "last stream closed after, s": max(reader.ended_at for reader in readers) - signalled_at,
        "first reconnect after, s": min(reconnect_s),
        "last reconnect after, s": max(reconnect_s),
        "most reconnects within 100 ms": Counter(int(each * 10) for each in reconnect_s).most_common(1)[0][1],
        "refused connections": sum(reader.refused for reader in readers),
    }


def restart(stack):
    stack.web.popen.send_signal(signal.SIGTERM)
    # In a thread, so that the readers keep reading.
    asyncio.get_running_loop().run_in_executor(None, lambda: (stack.web.popen.wait(30), stack.start_web()))


async def measure(stack, generations):
    readers = [Reader(stack.port, generations[n % GENERATIONS]) for n in range(STREAMS)]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    await until(readers, lambda reader: reader.decoder.last_id)
    columns = {"SIGHUP": await disturbed(readers, lambda: stack.web.popen.send_signal(signal.SIGHUP))}
    for reader in readers:
        reader.refused = 0
    columns["SIGTERM and restart"] = await disturbed(readers, lambda: restart(stack))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return columns


def main():
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), EVERSTREAM_RETRY_MS="1000", EVERSTREAM_LEASE_S="10", EVERSTREAM_HEARTBEAT_S="15")
        try:
            stack.start()
            gate = str(Path(folder) / "gate")
            held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate}
            generations = [stack.submit(**held) for _ in range(GENERATIONS)]
            wait_for(lambda: stack.running() == GENERATIONS)
            columns = asyncio.run(measure(stack, generations))
        finally:
            stack.stop()
    names = list(columns)
    print(f"| {STREAMS} streams, 2 workers | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    for row in columns[names[0]]:
        print(f"| {row} | {' | '.join(f'{columns[name][row]:.3g}' for name in names)} |")


if __name__ == "__main__":
    main()
