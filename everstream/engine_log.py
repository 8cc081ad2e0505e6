"""The engine side's client of the log: claim jobs, append entries, keep leases, say how the engine is. asyncio."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import libvalkey
import msgspec
from valkey import asyncio as valkey
from valkey.exceptions import NoScriptError, ResponseError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from everstream import log
from everstream.retryable import UNAVAILABLE, refusal
from everstream.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")

COMMAND_TIMEOUT_S = 5.0
RETRY_S = 0.3
COMPLAIN_EVERY_S = 5.0
BLOCK_S = 2
"""How long one claim waits for a job. Must stay below the command timeout."""

LOADING_TTL_S = 3600
"""A model may block the process while it loads, so that nothing can refresh this status."""
FAILED_TTL_S = 120
"""Longer than the launcher's longest pause before it tries the model again."""
CONSUMER_GONE_S = 60
"""At least, and twice the lease if that is longer: a consumer without jobs that was silent for so long is of a process
that has ended."""


class Claim(msgspec.Struct, frozen=True):
    """A job that this engine holds the lease of. `taken_over`: another engine had begun it."""

    job_id: str
    generation: str
    job: log.Job
    taken_over: bool


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Consecutive entries of one generation, each (entry, resume) in JSON; `final` is its state if the last ends it.

    `log_bytes` is about what all its entries take in the log.
    """

    generation: str
    first: int
    entries: Sequence[tuple[bytes, bytes]]
    final: str = ""
    log_bytes: int = 0


class Refreshed(msgspec.Struct, frozen=True):
    """`verdicts`, for each job: held, lost (another engine has it), stop (asked for), abandoned (nobody reads it) or
    foreign (its keys hold what is none of ours).

    `full`: the log is over its bound, and no finished generation is left to drop.
    """

    verdicts: list[str]
    full: bool


def _pack(batches: Sequence[Batch]) -> bytes:
    """One argument, as the client takes microseconds for each. Text, as Valkey's MessagePack has no type for bytes."""
    return msgspec.msgpack.encode(
        [
            (
                batch.generation,
                batch.first,
                batch.final,
                batch.log_bytes,
                [part.decode() for e in batch.entries for part in e],
            )
            for batch in batches
        ]
    )


async def until_answered(call: Callable[[], Awaitable[T]], what: str = "") -> T:
    """Call until Valkey takes it; say now and then that `what` waits for it. Raises ValkeyErrors that waiting does not
    heal."""
    said_at = -math.inf
    while True:
        try:
            return await call()
        except UNAVAILABLE as error:
            if cause := refusal(error):
                raise cause from None
            if what and time.monotonic() - said_at > COMPLAIN_EVERY_S:
                said_at = time.monotonic()
                logger.warning("%s waits for Valkey: %s", what, error)
            await asyncio.sleep(RETRY_S)


class EngineLog:
    """One per engine process. `consumer` is unique to the process, so a lease never outlives it unnoticed."""

    def __init__(self, settings: Settings, consumer: str) -> None:
        self.consumer = consumer
        self._settings = settings
        self._keys = log.Keys(settings.namespace)
        self._client = valkey.Valkey(
            connection_pool=valkey.BlockingConnectionPool.from_url(
                settings.log_url, socket_timeout=COMMAND_TIMEOUT_S, max_connections=16, timeout=COMMAND_TIMEOUT_S
            )
        )
        # Without a timeout of its own, for which it would make a task at each write; `_send_append` has one.
        append_pool = valkey.ConnectionPool.from_url(settings.log_url, socket_timeout=None)
        self._append_connection = append_pool.make_connection()
        self._append_turn = asyncio.Lock()
        self._subscriber = valkey.Valkey.from_url(
            settings.log_url, socket_timeout=None, **log.keepalive(settings.log_url)
        )
        self._begin = self._client.register_script(log.script("begin"))
        self._take_over = self._client.register_script(log.script("take_over"))
        self._append = self._client.register_script(log.script("append"))
        self._append_though_full = self._client.register_script(log.script("append", flags="allow-oom"))
        self._refresh = self._client.register_script(log.script("refresh"))
        self._fail = self._client.register_script(log.script("fail", flags="allow-oom"))
        self._report = self._client.register_script(log.script("report"))

    async def claim(self, count: int, *, abandon: bool = False) -> list[Claim]:
        """Wait up to BLOCK_S for jobs that nobody has claimed; with `abandon` those that nobody reads are ended."""
        try:
            found = await self._client.xreadgroup(
                log.GROUP, self.consumer, {self._keys.jobs: ">"}, count=count, block=BLOCK_S * 1000
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            await self._create_group()
            return []
        jobs = [(job_id, fields.get(b"generation", b"")) for _, entries in found or [] for job_id, fields in entries]
        return await self._claims(jobs, taken_over=False, abandon=abandon)

    async def take_over(self, count: int, idle_s: float, *, abandon: bool = False) -> list[Claim]:
        """Claim jobs whose lease was not refreshed for `idle_s`."""
        reply = await self._take_over(
            keys=[self._keys.jobs], args=[self._keys.ns, self.consumer, int(idle_s * 1000), count]
        )
        jobs = [(job_id, generation) for job_id, generation in cast(list[list[bytes]], reply)]
        return await self._claims(jobs, taken_over=True, abandon=abandon)

    async def _create_group(self) -> None:
        try:
            await self._client.xgroup_create(self._keys.jobs, log.GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _claims(self, jobs: list[tuple[bytes, bytes]], *, taken_over: bool, abandon: bool) -> list[Claim]:
        """Fetch what is to be done; jobs that were stopped or abandoned meanwhile end here."""
        if not jobs:
            return []
        ends = [log.encode_entry("cancelled", {"reason": reason}) for reason in ("requested", "abandoned")]
        arguments: list[Any] = [self._keys.ns, self._settings.retention_s, self._abandon_after_ms(abandon), *ends]
        reply = await self._begin(keys=[self._keys.jobs], args=[*arguments, *(part for job in jobs for part in job)])
        return [
            Claim(job_id.decode(), generation.decode(), msgspec.json.decode(job, type=log.Job), taken_over)
            for (job_id, generation), job in zip(jobs, cast(list[bytes], reply), strict=True)
            if job
        ]

    def _abandon_after_ms(self, abandon: bool) -> int:
        return int(self._settings.abandon_after_s * 1000) if abandon else 0

    async def refresh(
        self, claims: Sequence[tuple[Claim, int]], *, idle_s: float = 0, abandon: bool = False
    ) -> Refreshed:
        """Keep the leases of these jobs, each with what its entries take in the log, in bytes; an `idle_s` as long as
        the lease lets them go. Sweeps the log, too."""
        jobs = [part for claim, log_bytes in claims for part in (claim.job_id, claim.generation, log_bytes)]
        bounds = [self._abandon_after_ms(abandon), self._settings.retention_s, self._settings.max_log_bytes]
        arguments: list[Any] = [self._keys.ns, self.consumer, int(idle_s * 1000), *bounds]
        full, *verdicts = cast(list[Any], await self._refresh(keys=[self._keys.jobs], args=[*arguments, *jobs]))
        return Refreshed([verdict.decode() for verdict in verdicts], bool(full))

    async def history(self, generation: str) -> list[log.Entry]:
        """All entries so far."""
        found = await self._client.xrange(self._keys.log(generation))
        return [
            log.decode_entry(int(entry_id.partition(b"-")[0]), fields[b"entry"], fields.get(b"resume", b""))
            for entry_id, fields in found
        ]

    async def append(self, batches: Sequence[Batch], *, though_full: bool = False) -> set[str]:
        """Append and publish, in one round trip. Returns the generations that were refused. Safe to repeat.

        `though_full`: Valkey is to take it although it is at its `maxmemory`.
        """
        script = self._append_though_full if though_full else self._append
        arguments: list[Any] = [self._keys.jobs, self._keys.ns, self._settings.retention_s, _pack(batches)]
        try:
            reply = await self._send_append("EVALSHA", script.sha, 1, *arguments)
        except NoScriptError:
            reply = await self._send_append("EVAL", script.script, 1, *arguments)
        return {generation.decode() for generation in cast(list[bytes], reply)}

    async def _send_append(self, *command: Any) -> Any:
        """One after the other, over a connection of their own, without the client around it: its pool, its retries and
        its task for each write cost more than all the entries of a commit."""
        connection = self._append_connection
        async with self._append_turn:
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await connection.connect()
                    await connection.send_packed_command([libvalkey.pack_command(command)], check_health=False)
                    return await connection.read_response()
            except ResponseError:
                raise
            except BaseException as error:
                # The answer may still come, and would be taken for the next one's.
                await connection.disconnect(nowait=True)
                if isinstance(error, TimeoutError):
                    raise ValkeyTimeoutError("Valkey took too long to answer") from None
                raise

    async def fail(self, claim: Claim, code: str, message: str) -> None:
        """End a generation that this engine can't go on with. Does nothing where another engine has it by now."""
        entry = log.encode_entry("failed", {"code": code, "message": message})
        arguments: list[Any] = [self.consumer, self._settings.retention_s, claim.job_id, claim.generation, entry]
        await self._fail(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])

    async def report(self, status: log.EngineStatus) -> None:
        """Say how the engine is; forgotten by itself when it is no longer said. Forgets engines that are gone, too."""
        ttl_s = {"loading": LOADING_TTL_S, "failed": FAILED_TTL_S}.get(status.state, self._settings.lease_s)
        gone_s = max(CONSUMER_GONE_S, 2 * self._settings.lease_s)
        arguments: list[Any] = [status.name, msgspec.json.encode(status), int(ttl_s * 1000)]
        arguments += [self.consumer, int(gone_s * 1000)]
        await self._report(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])

    async def last_report(self, name: str) -> log.EngineStatus | None:
        """What an earlier process of this name said last."""
        found = await self._client.get(self._keys.engine(name))
        return msgspec.json.decode(found, type=log.EngineStatus) if found else None

    async def next_ask(self, *, is_long: bool) -> log.Ask | None:
        """Wait up to BLOCK_S for a question. None, too, for one whose asker has given up."""
        waiting = self._keys.asks(long=is_long)
        popped = await cast(Awaitable[list[bytes] | None], self._client.bzpopmin([waiting], timeout=BLOCK_S))
        found = await self._client.getdel(self._keys.ask(popped[1].decode())) if popped else None
        return msgspec.json.decode(found, type=log.Ask) if found else None

    async def answer(self, ask: log.Ask, answer: log.Answer) -> None:
        # In one transaction: an answer that nobody takes must not stay.
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(ask.reply, msgspec.json.encode(answer))
            pipe.expire(ask.reply, log.ASK_TIMEOUT_S)
            await pipe.execute()

    async def close(self) -> None:
        await self._client.aclose(close_connection_pool=True)
        await self._append_connection.disconnect(nowait=True)
        await self._subscriber.aclose(close_connection_pool=True)

    async def stops(self) -> AsyncIterator[str]:
        """Yield each generation that is asked to stop."""
        async with self._subscriber.pubsub() as subscription:
            await subscription.subscribe(self._keys.control)
            async for message in subscription.listen():
                if message["type"] == "message":
                    yield message["data"].decode()
