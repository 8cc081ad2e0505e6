"""The engine side's client of the log: claim jobs, append entries, keep leases, say how the engine is. asyncio."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import msgspec
from valkey import asyncio as valkey
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import ResponseError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from everstream import log
from everstream.settings import Settings

UNREACHABLE = (ValkeyConnectionError, ValkeyTimeoutError, OSError)
COMMAND_TIMEOUT_S = 10.0
BLOCK_MS = 2000
"""How long one claim waits for a job. Must stay below the command timeout."""

LOADING_TTL_S = 3600
"""A model may block the process while it loads, so that nothing can refresh this status."""
FAILED_TTL_S = 120
"""Longer than the launcher's longest pause before it tries the model again."""


class Claim(msgspec.Struct, frozen=True):
    """A job that this engine holds the lease of. `taken_over`: another engine had begun it."""

    job_id: str
    generation: str
    inputs: dict[str, Any]
    taken_over: bool


class Batch(msgspec.Struct, frozen=True):
    """Consecutive entries of one generation, each (entry, resume) in JSON; `final` is its state if the last ends it."""

    generation: str
    first: int
    entries: Sequence[tuple[str, str]]
    final: str = ""


class EngineLog:
    """One per engine process. `consumer` is unique to the process, so a lease never outlives it unnoticed."""

    def __init__(self, settings: Settings, consumer: str) -> None:
        self.consumer = consumer
        self._settings = settings
        self._keys = log.Keys(settings.namespace)
        self._client = valkey.Valkey.from_url(settings.log_url, socket_timeout=COMMAND_TIMEOUT_S, max_connections=16)
        self._subscriber = valkey.Valkey.from_url(
            settings.log_url, socket_timeout=None, **log.keepalive(settings.log_url)
        )
        self._append = self._client.register_script(log.script("append"))
        self._refresh = self._client.register_script(log.script("refresh"))

    async def claim(self, count: int) -> list[Claim]:
        """Wait up to BLOCK_MS for jobs that nobody has claimed."""
        try:
            found = await self._client.xreadgroup(
                log.GROUP, self.consumer, {self._keys.jobs: ">"}, count=count, block=BLOCK_MS
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()
            return []
        return [self._claim(entry, taken_over=False) for _, entries in found or [] for entry in entries]

    async def take_over(self, count: int) -> list[Claim]:
        """Claim jobs whose engine has not refreshed its lease for `lease_s`."""
        try:
            reply = await self._client.xautoclaim(
                self._keys.jobs, log.GROUP, self.consumer, int(self._settings.lease_s * 1000), count=count
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            return []
        return [self._claim(entry, taken_over=True) for entry in reply[1]]

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(self._keys.jobs, log.GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    @staticmethod
    def _claim(entry: tuple[bytes, dict[bytes, bytes]], *, taken_over: bool) -> Claim:
        job_id, fields = entry
        inputs = msgspec.json.decode(fields[b"inputs"])
        return Claim(job_id.decode(), fields[b"generation"].decode(), inputs, taken_over)

    async def refresh(self, claims: Sequence[Claim]) -> list[str]:
        """Keep the leases of these jobs. Returns for each: held, lost (another engine has it) or stop (asked for)."""
        if not claims:
            return []
        pairs = [part for claim in claims for part in (claim.job_id, claim.generation)]
        reply = await self._refresh(keys=[self._keys.jobs], args=[self._keys.ns, self.consumer, *pairs])
        return [verdict.decode() for verdict in cast(list[bytes], reply)]

    async def history(self, generation: str) -> list[log.Entry]:
        """All entries so far."""
        found = await self._client.xrange(self._keys.log(generation))
        return [log.decode_entry(entry_id, fields) for entry_id, fields in found]

    async def append(self, batches: Sequence[Batch]) -> set[str]:
        """Append and publish, in one round trip. Returns the generations that were refused. Safe to repeat."""
        arguments: list[str | int] = [self._keys.ns, self._settings.retention_s]
        for batch in batches:
            arguments += [batch.generation, batch.first, batch.final, len(batch.entries)]
            for entry, resume in batch.entries:
                arguments += [entry, resume]
        reply = await self._append(keys=[self._keys.jobs], args=arguments)
        return {generation.decode() for generation in cast(list[bytes], reply)}

    async def report(self, status: log.EngineStatus) -> None:
        """Say how the engine is; forgotten by itself when it is no longer said."""
        ttl_s = {"loading": LOADING_TTL_S, "failed": FAILED_TTL_S}.get(status.state, self._settings.lease_s)
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.engine(status.name), msgspec.json.encode(status), px=int(ttl_s * 1000))
            pipe.sadd(self._keys.engines, status.name)
            await pipe.execute()

    async def last_report(self, name: str) -> log.EngineStatus | None:
        """What an earlier process of this name said last."""
        found = await self._client.get(self._keys.engine(name))
        return msgspec.json.decode(found, type=log.EngineStatus) if found else None

    async def next_ask(self) -> log.Ask | None:
        """Wait up to BLOCK_MS for a question."""
        found = await self._client.blpop([self._keys.asks], timeout=BLOCK_MS / 1000)
        return msgspec.json.decode(found[1], type=log.Ask) if found else None

    async def answer(self, ask: log.Ask, answer: log.Answer) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.rpush(ask.reply, msgspec.json.encode(answer))
            pipe.expire(ask.reply, 60)
            await pipe.execute()

    async def close(self) -> None:
        await self._client.aclose(close_connection_pool=True)
        await self._subscriber.aclose(close_connection_pool=True)

    async def stops(self) -> AsyncIterator[str]:
        """Yield each generation that is asked to stop."""
        async with self._subscriber.pubsub() as subscription:
            await subscription.subscribe(self._keys.control)
            async for message in subscription.listen():
                if message["type"] == "message":
                    yield message["data"].decode()
