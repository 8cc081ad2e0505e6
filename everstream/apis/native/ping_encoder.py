"""Our own events for clients that watch their connection: the page and the client libraries. Pure. Made by `routes`.

Beside the log's events it sends `ping`, which EventSource shows to its page, unlike a comment: first with the number of
the log's last entry, then whenever nothing else was sent for a while. A client that gets nothing for twice that time
knows that its connection is dead. `engine` says what state the model's engines are in. None of these events has an id,
and each names its generation, because a stream may have several.
"""

import os

from everstream.log.entries import encode_json
from everstream.log.records import Generation
from everstream.web.event_encoder import EventEncoder
from everstream.web.sse import EngineState, Queued, event, retry


class PingEncoder(EventEncoder):
    shows_engines = True

    def __init__(self, known: Generation, interval_ms: int, signature: str = "") -> None:
        """`interval_ms`: how long nothing is sent before a ping."""
        super().__init__(known.id, known.model, signature)
        self._interval_ms = interval_ms
        self._last = known.top
        self.heartbeat = self._ping()

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:
        # Like /healthz, the process: one that is killed shows how its clients move to another.
        first = self._ping(retry_ms=retry_ms, last=self._last, worker=os.getpid())
        return super().start(retry_ms, is_new=is_new) + first

    def reconnect(self, retry_ms: int) -> bytes:
        return retry(retry_ms) + self._ping(retry_ms=retry_ms)

    def queued(self, place: Queued) -> bytes:
        return event("queued", self._data(**place._asdict()))

    def engine(self, state: EngineState) -> bytes:
        return event("engine", self._data(**state._asdict()))

    def _ping(self, **more: int) -> bytes:
        return event("ping", self._data(interval_ms=self._interval_ms, **more))

    def _data(self, **fields: str | int) -> bytes:
        return encode_json({"generation": self.generation, **fields})
