"""The engine side's client of the log: claim jobs, append entries, refresh leases, report status. asyncio."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
from valkey import asyncio as valkey
from valkey.exceptions import NoScriptError

from everstream.errors import InternalError
from everstream.log.append_connection import AppendConnection
from everstream.log.connection import COMMAND_TIMEOUT_S, keepalive
from everstream.log.entries import LINE, Entry, decode_lines, encode_entry, encode_live, join_live
from everstream.log.keys import Keys
from everstream.log.records import (
    VALIDATION_TIMEOUT_S,
    EngineStatus,
    Job,
    ModelDescription,
    ValidationReply,
    ValidationRequest,
)
from everstream.log.retryable import UNAVAILABLE, refusal
from everstream.log.scripts import load_script
from everstream.settings import Settings

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_S = 0.3
LOG_EVERY_S = 5.0
BLOCK_S = 2
"""How long one claim waits for a job. Must stay below the command timeout."""

WAKE_COUNT = 1000
"""Entries per read of the streams that wake an engine. One that has just started reads through all that are there."""

LOADING_TTL_S = 3600
"""Long, because a model may block the process while it loads, and then nothing can refresh this status."""
FAILED_TTL_S = 120
"""Longer than the supervisor's longest backoff before it starts an engine again."""
STATUS_TTL_S = {"loading": LOADING_TTL_S, "failed": FAILED_TTL_S, "draining": FAILED_TTL_S}
CONSUMER_GONE_S = 60
"""A consumer without jobs that has been idle for this long, or for twice the lease if that is longer, belongs to a
process that has ended."""


class Claim(msgspec.Struct, frozen=True):
    """A job whose lease this engine holds. `taken_over`: another engine had started it. `queued_s`: how long ago it was
    submitted."""

    job_id: str
    generation: str
    job: Job
    taken_over: bool
    queued_s: float = 0


class Held(msgspec.Struct, frozen=True):
    """A claim, with the approximate size in the log of the generation's entries, and its tokens. 0: not known yet."""

    claim: Claim
    log_bytes: int = 0
    tokens: int = 0


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Consecutive entries of one generation: the `lines` of its log from n = `first`, and its part of the live message.
    `length` is that of the log with these lines, in bytes.

    If the last one ends it, `final` is its state. `log_bytes` and `tokens`: of the whole generation then, as in `Held`.
    """

    generation: str
    first: int
    live: bytes
    lines: bytes
    length: int
    final: str = ""
    log_bytes: int = 0
    tokens: int = 0


class History(NamedTuple):
    """All entries of a generation so far, and the length of its log in bytes."""

    entries: Sequence[Entry]
    length: int

    def followed_by(self, generation: str, entry: bytes, resume: bytes = b"", *, final: str = "") -> Batch:
        """An entry in the next place."""
        n = len(self.entries) + 1
        line = LINE % (entry, resume, n)
        return Batch(generation, n, encode_live(generation.encode(), n, [entry]), line, self.length + len(line), final)


EMPTY = History((), 0)


class Refreshed(msgspec.Struct, frozen=True):
    """`verdicts`, one per job: held, lost (another engine has it), stop (requested), abandoned (nobody reads it) or
    foreign (its keys hold data that isn't ours).

    `full`: the log is over its bound, and no finished generation is left to evict.
    """

    verdicts: list[str]
    full: bool


def _commit(batches: Sequence[Batch], prefix: str) -> list[Any]:
    """The arguments for `append.lua`. `prefix`: of the logs' keys."""
    ends = [(each.generation, each.final, each.log_bytes, each.tokens) for each in batches if each.final]
    message = join_live([batch.live for batch in batches])
    arguments: list[Any] = [message, msgspec.msgpack.encode(ends) if ends else b""]
    for batch in batches:
        arguments += (prefix + batch.generation, batch.length, batch.lines)
    return arguments


async def until_answered(call: Callable[[], Awaitable[T]], what: str = "") -> T:
    """Call until Valkey accepts it, and log now and then that `what` is waiting. Raises ValkeyErrors that waiting does
    not cure."""
    logged_at = -math.inf
    while True:
        try:
            return await call()
        except UNAVAILABLE as error:
            if cause := refusal(error):
                raise cause from None
            if what and time.monotonic() - logged_at > LOG_EVERY_S:
                logged_at = time.monotonic()
                logger.warning("%s is waiting for Valkey: %s", what, error)
            await asyncio.sleep(RETRY_S)


class EngineLog:
    """One per engine process. `consumer` is unique to the process, so a lease never outlives it unnoticed.

    It claims from one queue only, that of the engine's model.
    """

    def __init__(self, settings: Settings, consumer: str) -> None:
        self.consumer = consumer
        self._settings = settings
        self._keys = Keys(settings.namespace, settings.engine_model)
        self._description = b""
        self._client = valkey.Valkey(
            connection_pool=valkey.BlockingConnectionPool.from_url(
                settings.log_url, socket_timeout=COMMAND_TIMEOUT_S, max_connections=16, timeout=COMMAND_TIMEOUT_S
            )
        )
        self._appends = AppendConnection(settings.log_url)
        self._subscriber = valkey.Valkey.from_url(settings.log_url, socket_timeout=None, **keepalive(settings.log_url))
        self._seen: dict[Any, Any] = {self._keys.jobs: "0-0", self._keys.wake: "0-0"}
        self._claim = self._client.register_script(load_script("claim"))
        self._take_over = self._client.register_script(load_script("take_over"))
        self._append = self._client.register_script(load_script("append"))
        self._append_though_full = self._client.register_script(load_script("append", flags="allow-oom"))
        self._refresh = self._client.register_script(load_script("refresh"))
        self._fail = self._client.register_script(load_script("fail", flags="allow-oom"))
        self._report = self._client.register_script(load_script("report"))

    async def claim(self, count: int, calm_s: Callable[[], float] = lambda: 0) -> list[Claim]:
        """Wait up to BLOCK_S for unclaimed jobs. End those that nobody has read for longer than they allow; only the
        last `calm_s()` count, since when readers could be recorded."""
        if found := await self._claim_now(count, calm_s()):
            return found
        await self._wait_for_jobs()
        return await self._claim_now(count, calm_s())

    async def _claim_now(self, count: int, calm_s: float) -> list[Claim]:
        arguments: list[Any] = [self._keys.ns, self.consumer, count, *self._begin_arguments(calm_s)]
        return await self._claims(await self._claim(keys=[self._keys.jobs], args=arguments), taken_over=False)

    async def _wait_for_jobs(self) -> None:
        """Wait up to BLOCK_S until something was queued since the last call, or a client fell below its own limit."""
        streams = await self._client.xread(self._seen, count=WAKE_COUNT, block=BLOCK_S * 1000)
        for key, entries in streams or []:
            self._seen[key.decode()] = entries[-1][0]

    async def take_over(self, count: int, idle_s: float, *, calm_s: float = 0) -> list[Claim]:
        """Claim jobs whose lease has not been refreshed for `idle_s`."""
        arguments: list[Any] = [self._keys.ns, self.consumer, int(idle_s * 1000), count]
        reply = await self._take_over(keys=[self._keys.jobs], args=[*arguments, *self._begin_arguments(calm_s)])
        return await self._claims(reply, taken_over=True)

    def _begin_arguments(self, calm_s: float) -> list[Any]:
        ends = [encode_entry("cancelled", {"reason": reason}) for reason in ("requested", "abandoned")]
        return [self._settings.retention_s, *self._abandon_ms(calm_s), *ends]

    async def _claims(self, begun: Any, *, taken_over: bool) -> list[Claim]:
        """Decode the jobs that a script has begun."""
        claims = []
        for job_id, generation, job, ms in cast(list[tuple[bytes, bytes, bytes, int]], begun):
            claim = Claim(job_id.decode(), generation.decode(), Job({}), taken_over, max(0, ms / 1000))
            try:
                claims.append(msgspec.structs.replace(claim, job=msgspec.json.decode(job, type=Job)))
            except msgspec.DecodeError as error:
                # One bad job must not end the process, and the next one, and the one after that.
                await self.fail(claim, InternalError.code, f"the job can't be read: {error}")
        return claims

    def _abandon_ms(self, calm_s: float) -> tuple[int, int]:
        return int(self._settings.abandon_after_s * 1000), int(calm_s * 1000)

    async def refresh(self, claims: Sequence[Held], *, idle_s: float = 0, calm_s: float = 0) -> Refreshed:
        """Refresh the leases of these jobs, and account for what they use. Sweeps the log.

        An `idle_s` as long as the lease releases them.
        """
        jobs: list[Any] = []
        for held in claims:
            jobs += (held.claim.job_id, held.claim.generation, held.log_bytes, held.tokens)
        bounds = [*self._abandon_ms(calm_s), self._settings.retention_s, self._settings.max_log_bytes]
        arguments: list[Any] = [self._keys.ns, self.consumer, int(idle_s * 1000), *bounds]
        full, *verdicts = cast(list[Any], await self._refresh(keys=[self._keys.jobs], args=[*arguments, *jobs]))
        return Refreshed([verdict.decode() for verdict in verdicts], bool(full))

    async def history(self, generation: str) -> History:
        found = cast(bytes, await self._client.get(self._keys.log(generation)) or b"")
        return History(decode_lines(found, 1), len(found))

    async def append(self, batches: Sequence[Batch], *, though_full: bool = False) -> set[str]:
        """Append and publish in one round trip. Returns the generations that were refused. Safe to retry.

        `though_full`: have Valkey accept it even at its `maxmemory`.
        """
        script = self._append_though_full if though_full else self._append
        prefix = self._keys.log("")
        arguments = [self._keys.jobs, self._keys.ns, self._settings.retention_s, *_commit(batches, prefix)]
        try:
            reply = await self._appends.call("EVALSHA", script.sha, 1, *arguments)
        except NoScriptError:
            reply = await self._appends.call("EVAL", script.script, 1, *arguments)
        return {log.decode().removeprefix(prefix) for log in cast(list[bytes], reply)}

    async def fail(self, claim: Claim, code: str, message: str) -> None:
        """End a generation that this engine can't continue. Does nothing if another engine has it by now."""
        entry = encode_entry("failed", {"code": code, "message": message})
        arguments: list[Any] = [self.consumer, self._settings.retention_s, claim.job_id, claim.generation, entry]
        await self._fail(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])

    async def report(self, status: EngineStatus, counted: Mapping[str, int] = {}) -> bool:
        """Report the engine's status, which expires unless it is repeated, and add to the counters. Also removes
        engines that are gone. Returns whether the engine has been asked to kill itself."""
        ttl_s = STATUS_TTL_S.get(status.state, self._settings.lease_s)
        gone_s = max(CONSUMER_GONE_S, 2 * self._settings.lease_s)
        status = msgspec.structs.replace(status, queue=self._keys.queue)
        arguments: list[Any] = [status.name, msgspec.json.encode(status), int(ttl_s * 1000)]
        arguments += [self.consumer, int(gone_s * 1000), self._keys.model, self._description]
        arguments += [part for pair in counted.items() for part in pair]
        return bool(await self._report(keys=[self._keys.jobs], args=[self._keys.ns, *arguments]))

    async def describe(self, description: ModelDescription) -> None:
        """Publish what the model takes. Later reports restore it if it gets lost. Raises ModelLoadError."""
        self._description = description.encoded()
        await self._client.set(self._keys.model, self._description)

    async def last_report(self, name: str) -> EngineStatus | None:
        """The last status reported under this name, perhaps by an earlier process."""
        found = await self._client.get(self._keys.engine(name))
        return msgspec.json.decode(found, type=EngineStatus) if found else None

    async def next_validation(self, *, is_long: bool) -> ValidationRequest | None:
        """Wait up to BLOCK_S for a request to validate inputs. None on a timeout, or if its sender has given up."""
        waiting = self._keys.validations(long=is_long)
        popped = await cast(Awaitable[list[bytes] | None], self._client.bzpopmin([waiting], timeout=BLOCK_S))
        found = await self._client.getdel(self._keys.validation(popped[1].decode())) if popped else None
        return msgspec.json.decode(found, type=ValidationRequest) if found else None

    async def reply(self, request: ValidationRequest, reply: ValidationReply) -> None:
        # In one transaction, so that a reply that nobody fetches always expires.
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(request.reply, msgspec.json.encode(reply))
            pipe.expire(request.reply, VALIDATION_TIMEOUT_S)
            await pipe.execute()

    async def close(self) -> None:
        await self._client.aclose(close_connection_pool=True)
        await self._appends.close()
        await self._subscriber.aclose(close_connection_pool=True)

    async def cancellations(self) -> AsyncIterator[str]:
        """Yield each generation that is to be cancelled."""
        async with self._subscriber.pubsub() as subscription:
            await subscription.subscribe(self._keys.control)
            async for message in subscription.listen():
                if message["type"] == "message":
                    yield message["data"].decode()
