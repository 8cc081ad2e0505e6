"""The web side's client of the log: submit, read, stop, ask. Synchronous; under gevent each call yields."""

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import valkey
from valkey.connection import BlockingConnectionPool
from valkey.exceptions import ConnectionError as ValkeyConnectionError
from valkey.exceptions import TimeoutError as ValkeyTimeoutError

from everstream import log
from everstream.errors import QueueFull
from everstream.settings import Settings

UNREACHABLE = (ValkeyConnectionError, ValkeyTimeoutError, OSError)
"""What a call raises while Valkey is down, restarting or paused: wait and try again."""

COMMAND_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 5


class WebLog:
    """Thread- and greenlet-safe; one per process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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

    def submit(self, generation: str, inputs: dict[str, Any], model: str, request_id: str = "") -> str:
        """Queue a generation. Returns its id: an earlier one's if the request id is known. Raises QueueFull."""
        request_key = self._keys.request(request_id) if request_id else ""
        arguments: list[Any] = [
            generation,
            msgspec.json.encode(inputs),
            model,
            request_key,
            self._settings.max_queued,
        ]
        reply = cast(list[bytes], self._submit(keys=[self._keys.jobs], args=[self._keys.ns, *arguments]))
        if reply[1] == b"full":
            raise QueueFull(f"{self._settings.max_queued} requests are waiting already; try again later")
        return reply[0].decode()

    def lookup(self, generation: str) -> log.Generation | None:
        """What is known of a generation, or None."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(self._keys.generation(generation), ["state", "model"])
            pipe.xrevrange(self._keys.log(generation), count=1)
            (state, model), last = pipe.execute()
        if state is None:
            return None
        top = int(last[0][0].partition(b"-")[0]) if last else 0
        return log.Generation(generation, state.decode(), model.decode(), top)

    def read(self, generation: str, after: int = 0, count: int | None = None) -> list[log.Entry]:
        """The entries above `after`, at most `count`."""
        found = self._client.xrange(self._keys.log(generation), min=f"({after}-0", max="+", count=count)
        return [log.decode_entry(entry_id, fields) for entry_id, fields in cast(list[Any], found)]

    def stop(self, generation: str) -> str:
        """Ask for the end of a generation. Returns '' (unknown), 'stopping', or how it ended."""
        return self._end(generation, "cancelled", {"reason": "requested"}, only_queued=False)

    def fail_queued(self, generation: str, code: str, message: str) -> str:
        """End a generation that no engine has claimed."""
        return self._end(generation, "failed", {"code": code, "message": message}, only_queued=True)

    def _end(self, generation: str, state: str, data: dict[str, str], *, only_queued: bool) -> str:
        entry = log.encode_entry(state, data)
        arguments: list[Any] = [self._settings.retention_s, generation, state, entry, "1" if only_queued else ""]
        reply = self._stop(keys=[self._keys.jobs], args=[self._keys.ns, *arguments])
        return cast(bytes, reply).decode()

    def positions(self) -> dict[str, int]:
        """Place in the queue of every generation that no engine has claimed, from 1."""
        group = next(iter(cast(list[dict[str, Any]], self._client.xinfo_groups(self._keys.jobs))), None)
        if group is None:
            return {}
        waiting = self._client.xrange(self._keys.jobs, min=f"({group['last-delivered-id'].decode()}", max="+")
        jobs = cast(list[tuple[bytes, dict[bytes, bytes]]], waiting)
        return {fields[b"generation"].decode(): place for place, (_, fields) in enumerate(jobs, 1)}

    def engines(self) -> list[log.EngineStatus]:
        """The engines that were heard of within their lease."""
        names = [name.decode() for name in sorted(cast(set[bytes], self._client.smembers(self._keys.engines)))]
        if not names:
            return []
        found = cast(list[bytes | None], self._client.mget([self._keys.engine(name) for name in names]))
        return [msgspec.json.decode(status, type=log.EngineStatus) for status in found if status]

    def ask(self, inputs: dict[str, Any]) -> log.Answer | None:
        """Let an engine look at inputs; None: none answered in time."""
        reply = self._keys.answer()
        with self._client.pipeline(transaction=False) as pipe:
            pipe.rpush(self._keys.asks, msgspec.json.encode(log.Ask(reply, inputs)))
            # What no engine answered is of no use later.
            pipe.expire(self._keys.asks, 2 * ASK_TIMEOUT_S)
            pipe.execute()
        found = cast(list[bytes] | None, self._client.blpop([reply], timeout=ASK_TIMEOUT_S))
        return msgspec.json.decode(found[1], type=log.Answer) if found else None

    def close(self) -> None:
        self._client.close()
        self._client.connection_pool.disconnect()
        self._subscriber.close()

    def subscribe(self) -> Iterator[list[tuple[str, list[log.Entry]]]]:
        """Yield an empty list once subscribed, then each appended batch. Raises UNREACHABLE when cut."""
        subscription = self._subscriber.pubsub()
        try:
            subscription.subscribe(self._keys.live)
            for message in subscription.listen():
                yield log.decode_live(message["data"]) if message["type"] == "message" else []
        finally:
            subscription.close()
