"""The web side's client of the log: submit, read, stop, validate. Synchronous; under gevent each call yields."""

import math
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from queue import LifoQueue
from typing import Any, cast

import msgspec
import valkey
from valkey._parsers.libvalkey import NOT_ENOUGH_DATA
from valkey.connection import BlockingConnectionPool
from valkey.exceptions import NoPermissionError, ValkeyError

from everstream.errors import (
    ChecksBusy,
    CheckTimedOut,
    EverstreamError,
    LogFull,
    QueueFull,
    RateLimited,
    RequestConflict,
)
from everstream.log.api_keys import KeyStore
from everstream.log.connection import COMMAND_TIMEOUT_S, keepalive
from everstream.log.entries import TAIL_BYTES, decode_lines, decode_live, encode_entry, last_n
from everstream.log.faults import Faults
from everstream.log.figures import Figures, decode
from everstream.log.keys import Keys
from everstream.log.records import (
    PLAIN,
    VALIDATION_TIMEOUT_S,
    EngineStatus,
    Generation,
    Job,
    ModelDescription,
    Page,
    Submission,
    ValidationReply,
    ValidationRequest,
    WorkerStatus,
    decode_status,
    inputs_digest,
)
from everstream.log.scripts import load_script
from everstream.settings import Settings
from everstream.sockets import unread_bytes

ENGINES_FOR_S = 0.2
"""How long a list of engines is reused, so that concurrent requests share one query. Less than an engine's tick."""
WORKER_FOR_S = 5.0
"""How long a worker's report of itself counts. Workers repeat it every second."""
SLOT_S = 15.0
"""How long a stream of a client with a limit counts. Its worker repeats it."""
MAX_VALIDATIONS = 64
MAX_LONG_VALIDATIONS = 16
"""Waiting at a time, across all web processes. One engine handles about as many before their senders give up."""
READ_BYTES = 256 << 10
"""Per read of the log: the most that one reader far behind holds in memory at a time."""
PROBE_S = 1
"""Minimum time between two probes, however often readiness is queried."""


class WebLog:
    """Thread- and greenlet-safe; one per process.

    Calls raise UNAVAILABLE when waiting can help, other ValkeyErrors when it can't.
    """

    def __init__(self, settings: Settings, queue_class: type = LifoQueue) -> None:
        """`queue_class`: for connections that are free."""
        self.faults = Faults()
        self._settings = settings
        self._engines: list[EngineStatus] = []
        self._engines_at = -math.inf
        self._keys = Keys(settings.namespace)
        self._queues = [model.queue for model in settings.served]
        self._client = valkey.Valkey(
            connection_pool=BlockingConnectionPool.from_url(
                settings.log_url,
                max_connections=64,
                timeout=COMMAND_TIMEOUT_S,
                socket_timeout=COMMAND_TIMEOUT_S,
                queue_class=queue_class,
            )
        )
        # A subscription waits until something is published, so its connection has no read timeout.
        self._subscriber = valkey.Valkey.from_url(settings.log_url, socket_timeout=None, **keepalive(settings.log_url))
        self.api_keys = KeyStore(self._client, self._keys)
        self._submit = self._client.register_script(load_script("submit"))
        self._stop = self._client.register_script(load_script("stop"))
        self._delete = self._client.register_script(load_script("delete"))
        self._read = self._client.register_script(load_script("read"))
        self._touch = self._client.register_script(load_script("touch"))
        self._positions = self._client.register_script(load_script("positions"))
        self._figures = self._client.register_script(load_script("figures"))
        self._find = self._client.register_script(load_script("engines"))
        self._probed_at = -math.inf
        self._probe = self._client.register_script(load_script("probe"))
        self._tokens_used = self._client.register_script(load_script("tokens_used"))
        self._take_slot = self._client.register_script(load_script("take_slot"))
        self._keep_slots = self._client.register_script(load_script("keep_slots"))
        self._validate = self._client.register_script(load_script("validate"))

    @property
    def fault(self) -> str:
        """What keeps this process from working with the log, in words; empty if no fault is known."""
        return self.faults.text

    def probe(self) -> None:
        """Try the commands that all requests need, so that each process notices a fault before a request hits it."""
        if time.monotonic() - self._probed_at < PROBE_S:
            return
        self._probed_at = time.monotonic()
        with suppress(ValkeyError), self.faults.recording("probe"):
            self._probe(keys=[self._keys.jobs], args=[self._keys.ns])

    def _keys_of(self, queue: str) -> Keys:
        return Keys(self._settings.namespace, queue)

    def submit(self, generation: str, job: Job, model: str, queue: str, submission: Submission = PLAIN) -> Generation:
        """Queue a generation. Returns it, or the existing one if the request id is known. Raises TryLater,
        RequestConflict."""
        jobs = self._keys_of(queue).jobs
        owner, request_id, limits = submission.owner, submission.request_id, submission.limits
        request_key = self._keys.request(request_id, owner) if request_id else ""
        thread_key = self._keys.thread(submission.thread, owner) if submission.thread else ""
        abandon_after_s = submission.abandon_after_s
        arguments: list[Any] = [
            generation,
            msgspec.json.encode(job),
            model,
            digest := inputs_digest(job.inputs, queue),
            request_key,
            self._settings.max_queued,
            self._settings.retention_s,
            self._settings.max_log_bytes,
            queue,
            "" if abandon_after_s is None else int(abandon_after_s * 1000),
            submission.record,
            owner,
            submission.client,
            *("" if limit is None else limit for limit in (limits.running, limits.queued, limits.log_bytes)),
            thread_key,
        ]
        with self.faults.recording("submit"):
            outcome, *started = cast(list[Any], self._submit(keys=[jobs], args=[self._keys.ns, *arguments]))
        if outcome == b"queue_full":
            raise QueueFull(f"{self._settings.max_queued} requests are already waiting; try again later")
        if outcome == b"log_full":
            raise LogFull("the log has no room for another generation; try again later")
        if outcome == b"too_many_waiting":
            raise RateLimited(f"{limits.queued} of your requests are already waiting; try again later")
        if outcome == b"too_many_bytes":
            raise RateLimited(f"your generations already take {limits.log_bytes} bytes of the log; try again later")
        found = _generation(started[0].decode(), started[1:-1], started[-1])
        if found.digest not in ("", digest):
            raise RequestConflict(
                "this request_id or idempotency key was used for a different request; use a new one", param="request_id"
            )
        return found

    @property
    def connection_pool(self) -> Any:
        """For others that keep something in the same Valkey."""
        return self._client.connection_pool

    def tokens_used(self, client: str) -> tuple[int, int, float]:
        """How many tokens a client's generations had in the last whole minute, and in this one; and for how many
        seconds this one has lasted."""
        last, this, ms = cast(list[int], self._tokens_used(keys=[self._keys.jobs], args=[self._keys.ns, client]))
        return last, this, ms / 1000

    def take_slot(self, client: str, stream: str, limit: int) -> bool:
        """Count one of a client's streams in all workers, for SLOT_S. False: it has as many as it may."""
        arguments: list[Any] = [self._keys.ns, client, limit, stream, int(SLOT_S * 1000)]
        return bool(self._take_slot(keys=[self._keys.jobs], args=arguments))

    def keep_slots(self, slots: Iterable[tuple[str, str]]) -> None:
        """Count these clients' streams for SLOT_S more."""
        arguments: list[Any] = [self._keys.ns, int(SLOT_S * 1000), *(part for slot in slots for part in slot)]
        self._keep_slots(keys=[self._keys.jobs], args=arguments)

    def release_slot(self, client: str, stream: str) -> None:
        self._client.zrem(self._keys.slots(client), stream)

    def record(self, generation: str) -> bytes | None:
        """What was submitted as its `record`; None: the generation is unknown, or has none."""
        return cast(bytes | None, self._client.hget(self._keys.generation(generation), "record"))

    def newest(self, thread: str, owner: str) -> str:
        """The newest generation of one of an owner's threads; empty: there is none, or it has expired."""
        found = cast(bytes | None, self._client.get(self._keys.thread(thread, owner)))
        return (found or b"").decode()

    def delete(self, generation: str) -> None:
        """Forget a generation and all that it said. One that is still open is stopped, and loses its record at once."""
        self.stop(generation)
        self._delete(keys=[self._keys.jobs], args=[self._keys.ns, generation])

    def lookup(self, generations: Sequence[str]) -> list[Generation | None]:
        """What the log knows about each generation, or None."""
        with self.faults.recording("lookup"), self._client.pipeline(transaction=False) as pipe:
            for generation in generations:
                pipe.hmget(self._keys.generation(generation), ["state", "model", "job_id", "digest", "queue", "owner"])
                pipe.getrange(self._keys.log(generation), -TAIL_BYTES, -1)
            found = pipe.execute(raise_on_error=False)
            return [
                _found(generation, fields, tail)
                for generation, fields, tail in zip(generations, found[::2], found[1::2], strict=True)
            ]

    def read(self, places: Sequence[tuple[str, int]], max_bytes: int) -> list[Page | None]:
        """For each generation and n, the entries above n: `max_bytes` in all, but at least one entry if there is one.

        None: unknown or expired.
        """
        arguments = [part for place in places for part in place]
        with self.faults.recording("read"):
            reply = self._read(keys=[self._keys.jobs], args=[self._keys.ns, max_bytes, *arguments])
        found = cast(list[list[Any]], reply)
        return [_page(after, *each) if each else None for (_, after), each in zip(places, found, strict=True)]

    def touch(
        self, generations: Iterable[str], counted: Mapping[str, int], *, worker: WorkerStatus | None = None
    ) -> None:
        """Record that these are being read, and add to the counters. `worker`: what this one reports of itself."""
        counters = [part for pair in counted.items() for part in pair]
        status = (worker.name, msgspec.json.encode(worker)) if worker else ("", "")
        arguments: list[Any] = [*status, int(WORKER_FOR_S * 1000), len(counted), *counters]
        with self.faults.recording("touch"):
            self._touch(keys=[self._keys.jobs], args=[self._keys.ns, *arguments, *generations])

    def figures(self) -> Figures:
        """The state of the whole service, in one round trip."""
        queues = [self._keys_of(queue).jobs for queue in self._queues]
        with self.faults.recording("figures"):
            reply = self._figures(keys=[self._keys.jobs], args=[self._keys.ns, *queues])
        return decode(cast(list[Any], reply), self._queues)

    def valkey_info(self) -> Mapping[str, Any]:
        """What Valkey says of its memory and its persistence; empty if this user may not ask."""
        try:
            memory, persistence = self._client.info("memory"), self._client.info("persistence")
            return cast(dict[str, Any], memory) | cast(dict[str, Any], persistence)
        except NoPermissionError:
            return {}

    def take_kill_turn(self, what: str, every_s: float) -> bool:
        """Whether nothing of this kind was killed by request in the last `every_s`. Then this counts as such a kill."""
        return bool(self._client.set(self._keys.kill_turn(what), "", nx=True, px=int(every_s * 1000)))

    def ask_to_die(self, engine: str) -> None:
        """Have the engine of this name kill itself when it reports next. The request expires if it reports no more."""
        self._client.set(self._keys.kill(engine), "", px=int(self._settings.lease_s * 1000))

    def stop(self, generation: str) -> str:
        """Cancel a generation. Returns '' (unknown), 'stopping', or its final state."""
        return self._end(generation, "cancelled", {"reason": "requested"}, claimed="ask")

    def fail(self, generation: str, error: EverstreamError, *, only_queued: bool) -> str:
        """End a generation that no engine has claimed or, unless `only_queued`, one whose lease has expired."""
        data = {"code": error.code, "message": error.message}
        return self._end(generation, "failed", data, claimed="leave" if only_queued else "end")

    def _end(self, generation: str, state: str, data: dict[str, str], *, claimed: str) -> str:
        entry = encode_entry(state, data)
        lease_ms = int(self._settings.lease_s * 1000)
        arguments: list[Any] = [self._settings.retention_s, generation, state, entry, claimed, lease_ms]
        reply = self._stop(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])
        return cast(bytes, reply).decode()

    def positions(self, queue: str) -> dict[str, int]:
        """The place in the queue, from 1, of every generation that no engine has claimed."""
        with self.faults.recording("positions"):
            waiting = cast(list[bytes], self._positions(keys=[self._keys_of(queue).jobs], args=[self._keys.ns]))
        return {generation.decode(): place for place, generation in enumerate(waiting, 1)}

    def engines(self, queues: Iterable[str]) -> list[EngineStatus]:
        """The engines of these queues that have reported within their lease.

        A list in which each of these queues has a ready one is reused for ENGINES_FOR_S.
        """
        wanted, now = set(queues), time.monotonic()
        ready = {engine.queue for engine in self._engines if engine.state == "ready"}
        if now - self._engines_at > ENGINES_FOR_S or not wanted <= ready:
            self._engines, self._engines_at = self._find_engines(), now
        return [engine for engine in self._engines if engine.queue in wanted]

    def description(self, queue: str) -> ModelDescription | None:
        """What an engine has published about this queue's model; None if none has, or in another version's format."""
        with self.faults.recording("description"):
            found = cast(bytes | None, self._client.get(self._keys_of(queue).model))
        try:
            return msgspec.json.decode(found, type=ModelDescription) if found else None
        except msgspec.DecodeError:
            return None

    def _find_engines(self) -> list[EngineStatus]:
        with self.faults.recording("engines"):
            found = cast(list[bytes], self._find(keys=[self._keys.jobs], args=[self._keys.ns]))
            statuses = [decode_status(report, EngineStatus) for report in found]
            return [self._with_progress(status) for status in statuses if status]

    def _with_progress(self, status: EngineStatus) -> EngineStatus:
        if status.state != "loading":
            return status
        progress = cast(bytes | None, self._client.get(self._keys_of(status.queue).loading))
        return msgspec.structs.replace(status, progress=(progress or b"").decode())

    def validate(self, inputs: dict[str, Any], queue: str, method: str, *, is_long: bool) -> ValidationReply:
        """Have an engine's model check inputs, or call another of its methods. Raises TryLater if too many such
        requests wait, or no reply comes in time."""
        reply = self._request_validation(inputs, queue, method, is_long=is_long)
        found = cast(list[bytes] | None, self._client.blpop([reply], timeout=VALIDATION_TIMEOUT_S))
        if not found:
            raise CheckTimedOut("no engine checked the prompt in time; try again later")
        return msgspec.json.decode(found[1], type=ValidationReply)

    def _request_validation(self, inputs: dict[str, Any], queue: str, method: str, *, is_long: bool) -> str:
        """Returns the key of the list for the reply."""
        validation = secrets.token_hex(16)
        reply = self._keys.validation_reply(validation)
        most = MAX_LONG_VALIDATIONS if is_long else MAX_VALIDATIONS
        request = msgspec.json.encode(ValidationRequest(reply, inputs, method))
        waiting = self._keys_of(queue).validations(long=is_long)
        arguments: list[Any] = [waiting, validation, request, VALIDATION_TIMEOUT_S * 1000, most]
        if not self._validate(keys=[self._keys.jobs], args=[self._keys.ns, *arguments]):
            raise ChecksBusy(f"{most} prompts are already waiting to be checked; try again later")
        return reply

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()
        self._subscriber.close()

    def subscribe(self) -> Generator[list[tuple[str, int, msgspec.Raw]], None, None]:
        """Yield an empty list once subscribed, then each message, decoded by `decode_live`.

        Raises UNAVAILABLE if the connection is lost, other ValkeyErrors if it is refused.
        """
        for messages in self.messages(self._keys.live):
            if not messages:
                yield []
            yield from map(decode_live, messages)

    def messages(self, channel: str) -> Iterator[list[bytes]]:
        """The messages of a channel, as many as have come; none once subscribed. Raises the same."""
        # Bypass valkey-py's PubSub: its overhead per message exceeds the cost of decoding the message.
        pool = self._subscriber.connection_pool
        with self.faults.recording("subscribe"):
            connection = pool.get_connection("SUBSCRIBE")
        try:
            with self.faults.recording("subscribe"):
                connection.send_command("SUBSCRIBE", channel)
                connection.read_response(disable_decoding=True)
            yield []
            while True:
                yield list(_received(connection))
                if unread_bytes(connection._sock):
                    # A read that finds data waiting does not yield, so under load no other greenlet would run.
                    time.sleep(0)
        finally:
            connection.disconnect()
            pool.release(connection)


def _received(connection: Any) -> Iterator[bytes]:
    """The messages of one read, which waits for the first."""
    reply = connection.read_response(disable_decoding=True)
    while reply is not NOT_ENOUGH_DATA:
        if isinstance(reply, ValkeyError):
            raise reply
        yield reply[2]
        # Without the connection's layers, which cost more than decoding the message.
        reply = connection._parser._reader.gets(False)


def _generation(generation: str, fields: Sequence[bytes | None], top: int) -> Generation:
    state, model, job_id, digest, queue, owner = ((field or b"").decode() for field in fields)
    # Valkey makes a job's id from its clock, in milliseconds.
    created = int(job_id.partition("-")[0]) // 1000
    return Generation(generation, state, model, top, created, digest, queue, owner)


def _found(generation: str, fields: Any, tail: Any) -> Generation | None:
    """Interpret Valkey's replies to a lookup. Keys that hold foreign data count as unknown."""
    for answer in (fields, tail):
        if isinstance(answer, Exception):
            if not str(answer).startswith("WRONGTYPE"):
                raise answer
            return None
    if fields[0] is None:
        return None
    try:
        return _generation(generation, fields, last_n(tail))
    except ValueError:
        return None


def _page(after: int, top: int, lines: bytes) -> Page:
    return Page(decode_lines(lines, after + 1, has_resume=False), top)
