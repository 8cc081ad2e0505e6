"""All open streams, and when to look whether one needs a heartbeat. Used by `open_streams`.

A timer for each stream would take half a kilobyte, and a look at all streams at each tick would take a fifth of a core
for 15,000 of them. So the streams are in sets, by the tick at which to look at them. One that was sent something
meanwhile is only then put into a later set.
"""

import math
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everstream.web.open_streams import OpenStream


class Heartbeats:
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
            for stream in self._due.pop(tick):
                self._look(stream, now)

    def _look(self, stream: "OpenStream", now: float) -> None:
        due_at = stream.sent_at + self._silence_s
        if due_at > now:
            self._put(stream, due_at)
            return
        if stream.is_waiting:
            stream.beat()
        # One that does not wait is about to send something.
        self._put(stream, now + self._silence_s)

    def _put(self, stream: "OpenStream", due_at: float) -> None:
        stream.due = math.ceil(due_at / self._tick_s)
        self._due.setdefault(stream.due, set()).add(stream)
