"""The web side's client of the log: submit, read, stop, ask. Synchronous; under gevent each call yields."""

import math
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

import msgspec
import valkey
from valkey.connection import BlockingConnectionPool
from valkey.exceptions import ValkeyError

from everstream import log
from everstream.errors import ChecksBusy, CheckTimedOut, EverstreamError, LogFull, QueueFull, RequestConflict
from everstream.retryable import UNAVAILABLE
from everstream.settings import Settings

COMMAND_TIMEOUT_S = 5.0
ENGINES_FOR_S = 0.2
"""Less than an engine's tick: many requests at once need not ask one by one."""
MAX_WAITING_ASKS = 64
MAX_WAITING_LONG_ASKS = 16
"""Questions of all web processes. One engine answers about as many before their askers give up."""
READ_BYTES = 256 << 10
"""Per read of the log: what one reader that is far behind holds in memory at a time."""
PROBE_S = 1
"""Between two trials, however often somebody asks whether all is well."""
FAULT_S = 5
"""A fault is forgotten after so long without meeting it again: nobody may have asked since."""


class WebLog:
    """Thread- and greenlet-safe; one per process.

    Calls raise UNAVAILABLE where waiting can help, other ValkeyErrors where it can't.
    """

    def __init__(self, settings: Settings) -> None:
        self._faults: dict[str, tuple[float, str]] = {}
        self._settings = settings
        self._engines: list[log.EngineStatus] = []
        self._engines_at = -math.inf
        self._keys = log.Keys(settings.namespace)
        self._client = valkey.Valkey(
            connection_pool=BlockingConnectionPool.from_url(
                settings.log_url,
                max_connections=64,
                timeout=COMMAND_TIMEOUT_S,
                socket_timeout=COMMAND_TIMEOUT_S,
            )
        )
        # A subscription waits for as long as nobody says anything, so its connection has no read timeout.
        self._subscriber = valkey.Valkey.from_url(
            settings.log_url, socket_timeout=None, **log.keepalive(settings.log_url)
        )
        self._submit = self._client.register_script(log.script("submit"))
        self._stop = self._client.register_script(log.script("stop"))
        self._read = self._client.register_script(log.script("read"))
        self._touch = self._client.register_script(log.script("touch"))
        self._positions = self._client.register_script(log.script("positions"))
        self._find = self._client.register_script(log.script("engines"))
        self._probed_at = -math.inf
        self._probe = self._client.register_script(log.script("probe"))
        self._ask = self._client.register_script(log.script("ask"))

    @property
    def fault(self) -> str:
        """What keeps this process from working with the log, in words; empty: nothing that is known."""
        recent = {call: said for call, (at, said) in self._faults.items() if time.monotonic() - at < FAULT_S}
        return "; ".join(f"the log (Valkey) refuses {call}: {said}" for call, said in recent.items())

    def probe(self) -> None:
        """Try what all requests need, so that a fault shows in each process, and before a request meets it."""
        if time.monotonic() - self._probed_at < PROBE_S:
            return
        self._probed_at = time.monotonic()
        with suppress(ValkeyError), self._vital("probe"):
            self._probe(keys=[self._keys.jobs], args=[self._keys.ns])

    @contextmanager
    def _vital(self, call: str) -> Iterator[None]:
        """Around what the service can't work without: an error that waiting does not heal is its fault."""
        try:
            yield
        except UNAVAILABLE:
            raise
        except ValkeyError as error:
            self._faults[call] = time.monotonic(), str(error)
            raise
        self._faults.pop(call, None)

    def submit(self, generation: str, job: log.Job, model: str, request_id: str = "") -> log.Generation:
        """Queue a generation. Returns it, or the earlier one if the request id is known. Raises TryLater,
        RequestConflict."""
        request_key = self._keys.request(request_id) if request_id else ""
        arguments: list[Any] = [
            generation,
            msgspec.json.encode(job),
            model,
            digest := log.digest(job.inputs),
            request_key,
            self._settings.max_queued,
            self._settings.retention_s,
            self._settings.max_log_bytes,
        ]
        with self._vital("submit"):
            said, *started = cast(list[Any], self._submit(keys=[self._keys.jobs], args=[self._keys.ns, *arguments]))
        if said == b"queue_full":
            raise QueueFull(f"{self._settings.max_queued} requests are waiting already; try again later")
        if said == b"log_full":
            raise LogFull("the log has no room for another generation; try again later")
        found = _generation(started[0].decode(), started[1:-1], started[-1])
        if found.digest not in ("", digest):
            raise RequestConflict("this request_id came with another request before; use a new one", param="request_id")
        return found

    def lookup(self, generations: Sequence[str]) -> list[log.Generation | None]:
        """What is known of each generation, or None."""
        with self._vital("lookup"), self._client.pipeline(transaction=False) as pipe:
            for generation in generations:
                pipe.hmget(self._keys.generation(generation), ["state", "model", "job_id", "digest"])
                pipe.xlen(self._keys.log(generation))
            found = pipe.execute(raise_on_error=False)
            return [
                _found(generation, fields, top)
                for generation, fields, top in zip(generations, found[::2], found[1::2], strict=True)
            ]

    def read(self, places: Sequence[tuple[str, int]], max_bytes: int) -> list[log.Page | None]:
        """For each generation and n, the entries above it: as many as fit for all, at least one if there is one.

        None: unknown or expired.
        """
        arguments = [part for place in places for part in place]
        with self._vital("read"):
            reply = self._read(keys=[self._keys.jobs], args=[self._keys.ns, max_bytes, *arguments])
        return [_page(*found) if found else None for found in cast(list[list[Any]], reply)]

    def touch(self, generations: Iterable[str], counted: Mapping[str, int]) -> None:
        """Say that these are being read, and add to the counters."""
        counters = [part for pair in counted.items() for part in pair]
        with self._vital("touch"):
            self._touch(keys=[self._keys.jobs], args=[self._keys.ns, len(counted), *counters, *generations])

    def counters(self) -> dict[str, int]:
        """All of `log.COUNTERS`."""
        found = cast(list[bytes | None], self._client.hmget(self._keys.counters, list(log.COUNTERS)))
        return {name: int(value or 0) for name, value in zip(log.COUNTERS, found, strict=True)}

    def gauges(self) -> dict[str, int]:
        """All of `log.GAUGES`."""
        ready = [engine for engine in self.engines() if engine.state == "ready"]
        return {
            "engines": len(ready),
            "generations_running": sum(engine.running for engine in ready),
            "generations_queued": len(self.positions()),
            "log_bytes": int(cast(bytes | None, self._client.get(self._keys.bytes)) or 0),
        }

    def stop(self, generation: str) -> str:
        """Ask for the end of a generation. Returns '' (unknown), 'stopping', or how it ended."""
        return self._end(generation, "cancelled", {"reason": "requested"}, claimed="ask")

    def fail(self, generation: str, error: EverstreamError, *, only_queued: bool) -> str:
        """End a generation that no engine has claimed or, unless only queued ones are meant, whose lease ran out."""
        data = {"code": error.code, "message": error.message}
        return self._end(generation, "failed", data, claimed="leave" if only_queued else "end")

    def _end(self, generation: str, state: str, data: dict[str, str], *, claimed: str) -> str:
        entry = log.encode_entry(state, data)
        lease_ms = int(self._settings.lease_s * 1000)
        arguments: list[Any] = [self._settings.retention_s, generation, state, entry, claimed, lease_ms]
        reply = self._stop(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])
        return cast(bytes, reply).decode()

    def positions(self) -> dict[str, int]:
        """Place in the queue of every generation that no engine has claimed, from 1."""
        with self._vital("positions"):
            waiting = cast(list[bytes], self._positions(keys=[self._keys.jobs], args=[self._keys.ns]))
        return {generation.decode(): place for place, generation in enumerate(waiting, 1)}

    def engines(self) -> list[log.EngineStatus]:
        """The engines that were heard of within their lease; one that was ready is taken for it for ENGINES_FOR_S."""
        now = time.monotonic()
        if now - self._engines_at > ENGINES_FOR_S or all(engine.state != "ready" for engine in self._engines):
            self._engines, self._engines_at = self._find_engines(), now
        return self._engines

    def _find_engines(self) -> list[log.EngineStatus]:
        with self._vital("engines"):
            found = cast(list[bytes], self._find(keys=[self._keys.jobs], args=[self._keys.ns]))
        return [status for status in map(_status, found) if status]

    def ask(self, inputs: dict[str, Any], *, is_long: bool) -> log.Answer:
        """Let an engine look at inputs. Raises TryLater if too many questions wait, or none answers in time."""
        reply = self._put_question(inputs, is_long=is_long)
        found = cast(list[bytes] | None, self._client.blpop([reply], timeout=log.ASK_TIMEOUT_S))
        if not found:
            raise CheckTimedOut("no engine has checked the length of the prompt in time; try again later")
        return msgspec.json.decode(found[1], type=log.Answer)

    def _put_question(self, inputs: dict[str, Any], *, is_long: bool) -> str:
        """Returns the list that the answer will be put on."""
        ask = secrets.token_hex(16)
        reply, most = self._keys.answer(ask), MAX_WAITING_LONG_ASKS if is_long else MAX_WAITING_ASKS
        question = msgspec.json.encode(log.Ask(reply, inputs))
        arguments: list[Any] = [self._keys.asks(long=is_long), ask, question, log.ASK_TIMEOUT_S * 1000, most]
        if not self._ask(keys=[self._keys.jobs], args=[self._keys.ns, *arguments]):
            raise ChecksBusy(f"{most} prompts wait to be checked already; try again later")
        return reply

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()
        self._subscriber.close()

    def subscribe(self) -> Iterator[list[tuple[str, int, msgspec.Raw]]]:
        """Yield an empty list once subscribed, then what each message says, as `log.decode_live` has it.

        Raises UNAVAILABLE when cut, other ValkeyErrors when refused.
        """
        # Without valkey-py's PubSub: what it does around each message costs more than to take the message apart.
        pool = self._subscriber.connection_pool
        with self._vital("subscribe"):
            connection = pool.get_connection("SUBSCRIBE")
        try:
            with self._vital("subscribe"):
                connection.send_command("SUBSCRIBE", self._keys.live)
                connection.read_response(disable_decoding=True)
            yield []
            while True:
                _, _, said = cast(list[Any], connection.read_response(disable_decoding=True))
                yield log.decode_live(said)
        finally:
            connection.disconnect()
            pool.release(connection)


def _status(said: bytes) -> log.EngineStatus | None:
    """None: it is of another version, or none of ours."""
    try:
        return msgspec.json.decode(said, type=log.EngineStatus)
    except msgspec.DecodeError:
        return None


def _generation(generation: str, fields: Sequence[bytes | None], top: int) -> log.Generation:
    state, model, job_id, digest = ((field or b"").decode() for field in fields)
    # Valkey makes a job's id of its clock's milliseconds.
    created = int(job_id.partition("-")[0]) // 1000
    return log.Generation(generation, state, model, top, created, digest)


def _found(generation: str, fields: Any, top: Any) -> log.Generation | None:
    """From what Valkey answered to a look-up. Keys that hold what is none of ours are of no generation."""
    for answer in (fields, top):
        if isinstance(answer, Exception):
            if not str(answer).startswith("WRONGTYPE"):
                raise answer
            return None
    return None if fields[0] is None else _generation(generation, fields, top)


def _page(top: int, *found: Any) -> log.Page:
    return log.Page([log.decode_entry(*pair) for pair in zip(found[::2], found[1::2], strict=True)], top)
