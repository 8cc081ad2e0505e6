"""Keeps a number of generations in flight until enough were started and the faults are over; then waits for all to end.

In: the phase's prompts, a seeded random source, a client. Out: the list of readers. Called by `phases`.
"""

import asyncio
import time

from chaos.client import Client
from chaos.reader import Plan, Reader

POLL_S = 0.02


class Crowd:
    """`expected`: the undisturbed outcome of each prompt; empty during the undisturbed run itself."""

    def __init__(self, client: Client, prompts, expected=()):
        self.readers: list[Reader] = []
        self._client = client
        self._prompts = prompts
        self._expected = expected
        self._tasks: set[asyncio.Task] = set()
        self._streams_open = 0

    @property
    def in_flight(self):
        return self._streams_open

    async def run_each_once(self, timeout_s):
        """Run all prompts at once, undisturbed. Returns the outcome of each."""
        plans = [Plan(number, number, inputs) for number, inputs in enumerate(self._prompts)]
        readers = [self._start(plan) for plan in plans]
        await self.drain(timeout_s)
        return [reader.outcome for reader in readers]

    async def keep_busy(self, rng, in_flight, at_least, at_most, faults):
        """Start a stream whenever one ends. `faults`: the task that injects them."""
        for number in range(at_most):
            while self._streams_open >= in_flight:
                await asyncio.sleep(POLL_S)
            if number >= at_least and faults.done():
                return
            self._start(Plan.draw(number, self._prompts, rng))
        await asyncio.wait([faults])

    async def drain(self, timeout_s):
        """Wait for all to end; those that have not ended by the timeout are stuck. Returns how long it took."""
        started = time.monotonic()
        while self._tasks and time.monotonic() - started < timeout_s:
            await asyncio.sleep(POLL_S)
        for task in set(self._tasks):
            task.cancel()
            await asyncio.wait([task])
        return time.monotonic() - started

    def _start(self, plan):
        reader = Reader(plan)
        self._streams_open += 1
        task = self._spawn(reader)
        task.add_done_callback(self._count_end)
        for after in plan.viewed_after:
            self._keep(asyncio.create_task(self._view(reader, after)))
        return reader

    def _count_end(self, _):
        self._streams_open -= 1

    async def _view(self, reader, after):
        while reader.next_n < after and not reader.is_over:
            await asyncio.sleep(POLL_S)
        if not reader.closed:
            self._spawn(reader.viewer(from_start=bool(after % 2)))

    def _spawn(self, reader):
        self.readers.append(reader)
        return self._keep(asyncio.create_task(self._run(reader)))

    def _keep(self, task):
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, reader):
        try:
            await self._client.run(reader)
        except asyncio.CancelledError:
            reader.violate("stuck", f"has not ended; its last event was {reader.idle_s:.0f} s ago")
            raise
        if self._expected:
            reader.compare(self._expected[reader.plan.prompt])
