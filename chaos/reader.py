"""One reader's state, without I/O: checks what it receives, and measures pauses and silences.

In: the bytes of consecutive connections, from `client`. Out: text, end, pauses and `violations`, which must stay empty.
"""

import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field

from chaos.arena import HEARTBEAT_S, RETRY_MS
from harness.sse_client import TERMINAL

OUTSIDE_THE_LOG = {"queued", "busy"}
"""Events without an id of their own. They say what happens to this connection, not what the model said."""
MAX_SILENCE_S = 4 * HEARTBEAT_S
MAX_VIOLATIONS = 10
"""Kept per reader: enough to see what went wrong."""


@dataclass(frozen=True)
class Plan:
    """One stream: its inputs, how it is started (`by_address`: GET /stream), after how many bytes its client drops each
    connection (`cuts`), and after which events additional viewers join (`viewed_after`)."""

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
        """Whether an EventSource would stop: it saw the end, or a status closed it permanently."""
        return self.closed or self.end is not None

    @property
    def outcome(self):
        """What must equal the undisturbed run."""
        return {"text": self.text, "end": self.end}

    @property
    def idle_s(self):
        """Seconds since its last event, or since it was created."""
        return time.monotonic() - (self._event_at or self._made_at)

    def violate(self, kind, what):
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append((kind, f"{what} (last id {self.last_id or 'none'}, connection {self.connections})"))

    def close(self, status, body):
        """Handle a status other than 200, which closes an EventSource permanently."""
        self.closed = True
        self.violate("other", f"got status {status} {body[:300]}")

    def viewer(self, *, from_start):
        """An additional viewer, from the start or from an earlier position of this one."""
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
        """Process bytes of this connection. Returns whether the client must drop it here, even mid-event."""
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
        if event.type in OUTSIDE_THE_LOG or not self._is_next(event):
            return
        data = json.loads(event.data)
        self.texts.append(data["text"] if event.type == "message" else "")
        if event.type in TERMINAL:
            self.end = (event.type, data)
        now = time.monotonic()
        self.longest_pause_s = max(self.longest_pause_s, now - (self._event_at or now))
        self._event_at = now

    def _is_next(self, event):
        """Whether the event is new. Records a violation if it repeats or skips a number."""
        generation, _, number = event.id.rpartition(".")
        self.generation = self.generation or generation
        if generation != self.generation or not number.isdigit():
            self.violate("other", f"{event.type} has the id {event.id!r}, the generation is {self.generation}")
            return False
        n = int(number)
        if n < self.next_n or self.end:
            self.violate("duplicated", f"got {event.type} {n}, expected {self.next_n}, end: {self.end}")
            return False
        if n > self.next_n:
            self.violate("lost", f"got {event.type} {n}, expected {self.next_n}")
        self.last_id, self.next_n = event.id, n + 1
        return True

    def waited(self, silence_s):
        """Record that an open connection was silent for this long."""
        self.longest_silence_s = max(self.longest_silence_s, silence_s)

    def judge_silence(self, lag_s):
        """`lag_s`: this process's longest event-loop lag. It may have read data that much later than it arrived."""
        if self.longest_silence_s > MAX_SILENCE_S + lag_s:
            self.violate("other", f"got no heartbeat for {self.longest_silence_s:.1f} s")

    def compare(self, expected):
        """Compare with the outcome of the undisturbed run."""
        if self.end is None or self.outcome == expected:
            return
        kind, data = self.end
        if kind != "done":
            self.violate("wrongly ended", f"unexpected {kind} {data}")
        elif self.text != expected["text"]:
            self.violate("text", f"compared with the undisturbed run: {difference(expected['text'], self.text)}")
        else:
            self.violate("other", f"the undisturbed run ended with {expected['end']}, this one with {self.end}")

    def compare_with_log(self, shown):
        """Compare with the response of GET /generations/<id>."""
        kind, data = self.end
        if shown["text"] != self.text:
            self.violate("text", f"compared with the log: {difference(shown['text'], self.text)}")
        ended = (shown["state"], shown["finish_reason"], shown["usage"])
        if ended != (kind, data.get("finish_reason"), data.get("usage")):
            self.violate("other", f"the log has {ended}, the stream had {self.end}")


def difference(expected, got):
    """Describe where two texts differ."""
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    return (
        f"expected {len(expected)} characters, at {at} {expected[at : at + 30]!r}; "
        f"got {len(got)}, at {at} {got[at : at + 30]!r}"
    )
