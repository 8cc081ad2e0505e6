"""One reader's state, without I/O: which bytes came, what they must have been, how long nothing came.

In: the bytes of one connection after the other. Out: text, end, pauses and `violations`, which must stay empty.
`client` feeds it.
"""

import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from chaos.arena import HEARTBEAT_S, RETRY_MS
from tests.sse_client import TERMINAL

MAX_SILENCE_S = 4 * HEARTBEAT_S
MAX_VIOLATIONS = 10
"""Kept of one reader: enough to tell what went wrong."""


@dataclass(frozen=True)
class Plan:
    """One stream: what is asked for and how, after how many bytes of each connection its client drops it, and after
    which events further viewers come."""

    number: int
    prompt: int
    inputs: dict
    by_address: bool = False
    cuts: tuple[int, ...] = ()
    viewed_after: tuple[int, ...] = ()

    @classmethod
    def draw(cls, number, prompts, rng):
        prompt = rng.randrange(len(prompts))
        by_address = rng.random() < 0.4
        cuts = tuple(rng.randrange(1, 6000) for _ in range(rng.randrange(1, 4))) if rng.random() < 0.2 else ()
        viewed_after = tuple(rng.randrange(1, 60) for _ in range(rng.choice((0, 0, 1, 2, 3))))
        return cls(number, prompt, prompts[prompt], by_address, cuts, viewed_after)


@dataclass
class Reader:
    plan: Plan
    is_viewer: bool = False
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    generation: str = ""
    last_id: str = ""
    next_n: int = 0
    texts: list[str] = field(default_factory=list)
    end: tuple[str, dict] | None = None
    closed: bool = False
    retry_s: float = RETRY_MS / 1000
    connections: int = 0
    cuts: int = 0
    longest_pause_s: float = 0.0
    longest_silence_s: float = 0.0
    seen: Counter = field(default_factory=Counter)
    violations: list[tuple[str, str]] = field(default_factory=list)
    _made_at: float = field(default_factory=time.monotonic)
    _event_at: float | None = None
    _bytes_to_cut: int | None = None

    @property
    def text(self):
        return "".join(self.texts)

    @property
    def is_over(self):
        """As far as an EventSource is concerned: the end was seen, or a status closed it for good."""
        return self.closed or self.end is not None

    @property
    def outcome(self):
        """What must be as in the undisturbed run."""
        return {"text": self.text, "end": self.end}

    @property
    def idle_s(self):
        """Since its last event, or ever."""
        return time.monotonic() - (self._event_at or self._made_at)

    def violate(self, kind, what):
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append((kind, f"{what} (last id {self.last_id or 'none'}, connection {self.connections})"))

    def close(self, status, body):
        """A status other than 200, which ends an EventSource for good."""
        self.closed = True
        self.violate("other", f"was answered {status} {body[:300]}")

    def viewer(self, *, from_start):
        """A further viewer, from the start or from a place that this one has passed."""
        viewer = Reader(self.plan, is_viewer=True, generation=self.generation)
        after = -1 if from_start else self.next_n // 2
        if after >= 0:
            viewer.last_id, viewer.next_n = f"{self.generation}.{after}", after + 1
            viewer.texts = self.texts[: after + 1]
        return viewer

    def connected(self):
        self.connections += 1
        cuts = () if self.is_viewer else self.plan.cuts
        self._bytes_to_cut = cuts[self.cuts] if self.cuts < len(cuts) else None

    def take(self, chunk, decoder):
        """Bytes of this connection. True if the client is to drop it here, whatever this cuts in two."""
        cut = self._bytes_to_cut is not None and len(chunk) >= self._bytes_to_cut
        for event in decoder.feed(chunk[: self._bytes_to_cut] if cut else chunk):
            self._take_event(event)
        if decoder.retry_ms is not None:
            self.retry_s = decoder.retry_ms / 1000
        if self._bytes_to_cut is not None:
            self._bytes_to_cut -= len(chunk)
        self.cuts += cut
        return cut

    def _take_event(self, event):
        self.seen[event.type] += 1
        if event.type == "queued" or not self._is_next(event):
            return
        data = json.loads(event.data)
        self.texts.append(data["text"] if event.type == "message" else "")
        if event.type in TERMINAL:
            self.end = (event.type, data)
        now = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now - (self._event_at or now))
        self._event_at = now

    def _is_next(self, event):
        """Whether it was not there before; that it is the very next is checked beside."""
        generation, _, number = event.id.rpartition(".")
        self.generation = self.generation or generation
        if generation != self.generation or not number.isdigit():
            self.violate("other", f"{event.type} has the id {event.id!r}, the generation is {self.generation}")
            return False
        n = int(number)
        if n < self.next_n or self.end:
            self.violate("duplicated", f"{event.type} {n} came where {self.next_n} was next, end: {self.end}")
            return False
        if n > self.next_n:
            self.violate("lost", f"{event.type} {n} came where {self.next_n} was next")
        self.last_id, self.next_n = event.id, n + 1
        return True

    def waited(self, silence_s):
        """Nothing at all came over an open connection for so long."""
        self.longest_silence_s = max(self.longest_silence_s, silence_s)

    def judge_silence(self, lag_s):
        """`lag_s`: how late this process was at most; by so much it may have seen too late what came in time."""
        if self.longest_silence_s > MAX_SILENCE_S + lag_s:
            self.violate("other", f"was left without a heartbeat for {self.longest_silence_s:.1f} s")

    def compare(self, expected):
        """With the undisturbed run's outcome."""
        if self.end is None or self.outcome == expected:
            return
        kind, data = self.end
        if kind != "done":
            self.violate("wrongly ended", f"{kind} {data}, which nobody asked for")
        elif self.text != expected["text"]:
            self.violate("text", f"undisturbed: {difference(expected['text'], self.text)}")
        else:
            self.violate("other", f"undisturbed it ended with {expected['end']}, here with {self.end}")

    def compare_with_log(self, shown):
        """With what GET /generations/<id> says."""
        kind, data = self.end
        if shown["text"] != self.text:
            self.violate("text", f"log: {difference(shown['text'], self.text)}")
        ended = (shown["state"], shown["finish_reason"], shown["usage"])
        if ended != (kind, data.get("finish_reason"), data.get("usage")):
            self.violate("other", f"the log says {ended}, the stream said {self.end}")


def difference(expected, got):
    """Where two texts part."""
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    return (
        f"{len(expected)} characters, at {at} {expected[at : at + 30]!r}; "
        f"here {len(got)}, and there {got[at : at + 30]!r}"
    )
