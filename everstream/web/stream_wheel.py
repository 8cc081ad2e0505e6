"""All open streams, and when to look whether one needs a heartbeat. Used by `open_streams`.

A timer for each stream would take half a kilobyte, and a look at all streams at each tick would take a fifth of a core
for 15,000 of them. So the streams are in sets, by the tick at which to look at them: a timing wheel. A stream that sent
something in the meantime moves to a later set only when its tick comes.
"""

import math
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import gevent

if TYPE_CHECKING:
    from everstream.web.open_streams import OpenStream

AT_ONCE = 200
"""Streams that are looked at before other greenlets run."""


class StreamWheel:
    """`silence_s`: after this long without anything sent, a stream is due a heartbeat. `send_due` is called every
    `tick_s`."""

    def __init__(self, silence_s: float, tick_s: float) -> None:
        self._silence_s, self._tick_s = silence_s, tick_s
        self._due: dict[int, set[OpenStream]] = {}

    def __iter__(self) -> Iterator["OpenStream"]:
        return chain.from_iterable(self._due.values())

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def add(self, stream: "OpenStream") -> None:
        self._put(stream, time.monotonic() + self._silence_s)

    def discard(self, stream: "OpenStream") -> None:
        if due := self._due.get(stream.due):
            due.discard(stream)

    def send_due(self) -> None:
        now = time.monotonic()
        for tick in [each for each in self._due if each * self._tick_s <= now]:
            due = self._due[tick]
            while due:
                for _ in range(min(len(due), AT_ONCE)):
                    self._look(due.pop(), now)
                # Followers that came together are due together.
                gevent.sleep(0)
            del self._due[tick]

    def _look(self, stream: "OpenStream", now: float) -> None:
        due_at = stream.sent_at + self._silence_s
        # One that does not wait is about to send something.
        self._put(stream, due_at if due_at > now else now + self._silence_s)
        if due_at <= now and stream.is_waiting:
            stream.beat()

    def _put(self, stream: "OpenStream", due_at: float) -> None:
        stream.due = math.ceil(due_at / self._tick_s)
        self._due.setdefault(stream.due, set()).add(stream)
