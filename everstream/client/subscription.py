"""Follows one generation over any number of connections: a state machine without I/O, which decides what is new, what
was lost, when to connect again, and when it is over. `answer` and `async_answer` drive it.

In: responses and bytes of consecutive connections, and their failures. Out: `events`, each entry exactly once and in
order; `wait_s`, the delay before the next connection; and `end`, the terminal event.
"""

import re
from collections import deque
from http import HTTPStatus
from typing import Any

from everstream.client.backoff import Backoff
from everstream.client.errors import Unavailable
from everstream.client.events import FAILED, TERMINAL, Event, checked_generation, error_of
from everstream.client.replies import Reply
from everstream.client.requests import EVENT_STREAM
from everstream.client.sse import ServerSentEvent
from everstream.client.stream import Stream, json_of

_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
_GONE = "expired"
"""Replaces the number in the id of a terminal event that is not in the log."""


class Subscription(Stream):
    def __init__(self, generation: str, after: int | None, backoff: Backoff, max_event_bytes: int) -> None:
        """`after`: the last entry that the caller has; None: none. Raises ValueError."""
        if after is not None and (isinstance(after, bool) or not isinstance(after, int) or after < 0):
            raise ValueError(f"after must be the number of an entry, not {after!r}")
        super().__init__(backoff, max_event_bytes)
        self.generation = checked_generation(generation)
        self.after = -1 if after is None else after
        self.last = self.after
        self.events: deque[Event] = deque()
        self.end: Event | None = None

    def headers(self) -> dict[str, str]:
        """Of the next connection's request."""
        if self.last < 0:
            return EVENT_STREAM
        return {**EVENT_STREAM, "Last-Event-ID": f"{self.generation}.{self.last}"}

    def opened(self, reply: Reply) -> bool:
        """Whether the response is a stream. If it isn't, the generation has ended and the caller had seen all of it;
        then call `settle`. Raises RequestRefused, Unavailable."""
        if reply.status == HTTPStatus.NO_CONTENT and self.last >= 0:
            return False
        self._begin(reply)
        return True

    def settle(self, snapshot: dict[str, Any]) -> None:
        """Take the end from the generation's snapshot. Raises Unavailable if it is not what the caller had seen."""
        if snapshot["state"] not in TERMINAL or snapshot.get("last") != self.last:
            # Some proxies answer anything with 204. An answer that is incomplete must never look finished.
            raise Unavailable("unexpected_response", "status 204, but there is more to read", status=204)
        data = snapshot["error"] if snapshot["state"] == FAILED and "error" in snapshot else snapshot
        self.end = Event(snapshot["state"], f"{self.generation}.{self.last}", self.last, data)

    def raise_unless_done(self) -> None:
        if self.end is not None and (error := error_of(self.end)):
            raise error

    @property
    def is_over(self) -> bool:
        return self.end is not None

    def _take(self, event: ServerSentEvent) -> None:
        if event.id is None:
            self._give(Event(event.type, "", None, json_of(event)))
            return
        n = self._number(event.id)
        if n is not None and n <= self.last:
            return
        if n is not None and n > self.last + 1:
            raise Unavailable("gap", f"entry {n} came after entry {self.last}; the server skipped some")
        self._give(Event(event.type, event.id, n, json_of(event)))

    def _number(self, event_id: str) -> int | None:
        """The number in an id; None if the event is not in the log. Raises Unavailable."""
        generation, _, number = event_id.rpartition(".")
        if generation == self.generation and number == _GONE:
            return None
        if generation != self.generation or not _NUMBER.fullmatch(number):
            raise Unavailable("gap", "an event has the id of something else")
        return int(number)

    def _give(self, event: Event) -> None:
        self.events.append(event)
        # News about the queue and the engines is no progress: a server may say it, and die, again and again.
        if event.n is not None:
            self.last = event.n
            self._backoff.progressed()
        if event.type in TERMINAL:
            self.end = event
