"""Topics under faults: producers that die, and followers that come back. Beside the generations of a phase.

Each producer publishes numbered messages to its own topic, and repeats each until it is acknowledged. Now and then it
dies in the middle of a request; the next one begins with the message that was not acknowledged, with the same id. Each
follower checks that it gets each message of its topics once, in order. Called by `phases`.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from chaos.arena import RETRY_MS
from chaos.client import NETWORK_ERRORS
from harness.sse_client import Decoder

PREFIX = "chaos"
PRODUCERS = 5
FOLLOWERS_OF_ONE = 4
FOLLOWERS_OF_ALL = 5
PAUSE_S = 0.1
"""On average, between two requests of a producer."""
DIES_ONCE_IN = 30
"""Requests."""
CUTS_ONCE_IN = 60
"""Chunks."""
PATIENCE_S = 0.2
MAX_VIOLATIONS = 10


@dataclass
class Producer:
    """`acknowledged`: how many of its messages are in the log."""

    number: int
    acknowledged: int = 0
    deaths: int = 0
    repeats: int = 0
    epoch: int = 0
    sequence: int = 0

    @property
    def topic(self):
        return f"{PREFIX}/{self.number}"

    def batch(self, rng):
        first = self.acknowledged
        return [
            {"data": {"producer": self.number, "n": n}, "id": f"{self.number}-{n}"}
            for n in range(first, first + rng.randrange(1, 4))
        ]

    def headers(self):
        """A new incarnation begins a new epoch."""
        return {
            "Producer-Id": f"producer-{self.number}",
            "Producer-Epoch": str(self.epoch),
            "Producer-Seq": str(self.sequence),
        }

    def die(self):
        self.deaths, self.epoch, self.sequence = self.deaths + 1, self.epoch + 1, 0


@dataclass
class Follower:
    """`topics`: what it asks for. `expected`: of each producer, the number of the next message."""

    name: str
    query: str
    producers: list[int]
    last_id: str = ""
    connections: int = 0
    cuts: int = 0
    retry_s: float = RETRY_MS / 1000
    expected: Counter = field(default_factory=Counter)
    seen: Counter = field(default_factory=Counter)
    violations: list[tuple[str, str]] = field(default_factory=list)

    def violate(self, kind, what):
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append((kind, f"{what} (last id {self.last_id}, connection {self.connections})"))

    def take(self, event):
        self.seen[event.type] += 1
        if event.id and self.last_id and event.type == "message" and event.id <= self.last_id:
            self.violate("duplicated", f"the id {event.id}")
        self.last_id = event.id or self.last_id
        if event.type == "message":
            self._take_message(json.loads(event.data))
        elif event.type not in ("open", "busy"):
            self.violate("other", f"got {event.type} {event.data}")

    def _take_message(self, data):
        data = data["data"] if "topic" in data else data
        producer, n = data["producer"], data["n"]
        if n < self.expected[producer]:
            self.violate("duplicated", f"got {n} of producer {producer}, expected {self.expected[producer]}")
        elif n > self.expected[producer]:
            self.violate("lost", f"got {n} of producer {producer}, expected {self.expected[producer]}")
        self.expected[producer] = n + 1

    def has_all(self, producers):
        return all(
            self.expected[each.number] >= each.acknowledged for each in producers if each.number in self.producers
        )


class TopicCrowd:
    """One per phase. `url` points to nginx."""

    def __init__(self, url, rng):
        self.producers = [Producer(number) for number in range(PRODUCERS)]
        self.followers = [
            *(
                Follower(f"{number}.{copy}", f"/topics/{PREFIX}/{number}?", [number])
                for number in range(PRODUCERS)
                for copy in range(FOLLOWERS_OF_ONE)
            ),
            *(
                Follower(f"all.{copy}", f"/topics?topic={PREFIX}/*&", [*range(PRODUCERS)])
                for copy in range(FOLLOWERS_OF_ALL)
            ),
        ]
        self._url, self._rng = url, rng
        self._is_over = False
        self._tasks = []

    async def start(self):
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        )
        for producer in self.producers:
            # Kept whole, so that no follower may be told of a reset.
            await self._until_done(lambda producer=producer: self._make(producer))
        self._followers = [asyncio.create_task(self._follow(each)) for each in self.followers]
        self._producers = [asyncio.create_task(self._produce(each)) for each in self.producers]

    async def stop(self, timeout_s):
        """Let producers finish what they have begun, and followers get it all. Who has not in time is stuck."""
        self._is_over = True
        _, late = await asyncio.wait(self._producers, timeout=timeout_s)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not all(each.has_all(self.producers) for each in self.followers):
            await asyncio.sleep(PATIENCE_S)
        for follower in self.followers:
            if not follower.has_all(self.producers):
                follower.violate("stuck", f"has {dict(follower.expected)}")
        for task in [*self._followers, *late]:
            task.cancel()
        await asyncio.gather(*self._followers, *late, return_exceptions=True)
        await self._session.close()

    async def _make(self, producer):
        async with self._session.put(f"{self._url}/topics/{producer.topic}", json={}) as answer:
            return answer.status in (200, 201)

    async def _produce(self, producer):
        while not self._is_over:
            batch = producer.batch(self._rng)
            request = asyncio.create_task(self._until_done(lambda: self._publish(producer, batch)))  # noqa: B023
            if self._rng.randrange(DIES_ONCE_IN) == 0:
                await asyncio.sleep(self._rng.random() * PAUSE_S)
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
                producer.die()
                continue
            await request
            await asyncio.sleep(self._rng.random() * 2 * PAUSE_S)

    async def _publish(self, producer, batch):
        address, headers = f"{self._url}/topics/{producer.topic}", producer.headers()
        async with self._session.post(address, json=batch, headers=headers) as answer:
            if answer.status == 200:
                producer.acknowledged += len(batch)
                producer.sequence += 1
            elif answer.status < 500 and answer.status != 429:
                raise AssertionError(f"publishing was answered with {answer.status} {await answer.text()}")
            return answer.status == 200

    async def _until_done(self, step):
        while True:
            try:
                if await step():
                    return
            except NETWORK_ERRORS:
                pass
            await asyncio.sleep(PATIENCE_S)

    async def _follow(self, follower):
        while True:
            follower.connections += 1
            try:
                await self._connect(follower)
            except NETWORK_ERRORS as error:
                follower.seen[type(error).__name__] += 1
            await asyncio.sleep(follower.retry_s)

    async def _connect(self, follower):
        # As an EventSource that has seen nothing yet, but from the beginning: it must not depend on when it comes.
        after = "" if follower.last_id else "last_event_id=0000000000000000"
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": follower.last_id} if follower.last_id else {})
        decoder = Decoder(last_id=follower.last_id)
        async with self._session.get(f"{self._url}{follower.query}{after}", headers=headers) as answer:
            if answer.status != 200:
                follower.violate("other", f"got status {answer.status}")
                return
            while chunk := await answer.content.readany():
                cut = self._rng.randrange(CUTS_ONCE_IN) == 0
                for event in decoder.feed(chunk[: self._rng.randrange(len(chunk))] if cut else chunk):
                    follower.take(event)
                if cut:
                    follower.cuts += 1
                    return
                follower.retry_s = (decoder.retry_ms or RETRY_MS) / 1000
