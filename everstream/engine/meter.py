"""Counts tokens and generations, and times outputs, for `/metrics` and the dashboard. Pure: times come from the caller.

In: each output of each generation, from `generation_task`, before outputs are joined. Out: increments of the log's
counters, which `engine` reports with its status. What a killed engine has not reported yet, half a second of it, is not
counted.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

from everstream.log.counters import field
from everstream.log.histograms import (
    GENERATION,
    INTER_TOKEN_LATENCY,
    LOG_APPEND,
    QUEUE_WAIT,
    TIME_TO_FIRST_TOKEN,
    Histogram,
)

TOKENS = "tokens_generated"
BYTES_PER_TOKEN = 4
"""Of English text, about."""
MAX_KEYS = 200
"""Of API keys that have counters of their own, in one engine process."""
OTHER = "(other)"
BOUNDS = INTER_TOKEN_LATENCY.bounds


class EngineMeter:
    """What all generations of one engine have in common."""

    __slots__ = (
        "_counted",
        "_keys",
        "_model",
        "_noted",
        "_open",
        "_untaken",
        "appends",
        "first",
        "gaps",
        "waits",
        "whole",
    )

    def __init__(self, model: str = "") -> None:
        self.first = Histogram(TIME_TO_FIRST_TOKEN, model)
        self.gaps = Histogram(INTER_TOKEN_LATENCY, model)
        self.waits = Histogram(QUEUE_WAIT, model)
        self.whole = Histogram(GENERATION, model)
        self.appends = Histogram(LOG_APPEND, model)
        self._model = model
        self._keys: set[str] = set()
        self._noted: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._open: set[GenerationMeter] = set()
        self._untaken: dict[str, int] = {}

    def open(self, generation: "GenerationMeter") -> None:
        self._open.add(generation)

    def close(self, generation: "GenerationMeter") -> None:
        self._settle(generation)
        self._open.discard(generation)

    def _settle(self, generation: "GenerationMeter") -> None:
        """Once in a while, so that an output need not change several counters."""
        tokens, gaps_s = generation.take()
        self._count_tokens("answer_tokens", generation.key, tokens)
        self._counted[TOKENS] += tokens
        self.gaps.sum_s += gaps_s

    def _count_tokens(self, name: str, key: str, tokens: int) -> None:
        """The tokens of all keys after the first MAX_KEYS count as one key's."""
        if tokens:
            if key not in self._keys and len(self._keys) >= MAX_KEYS:
                key = OTHER
            self._keys.add(key)
            self._counted[field(name, self._model, key)] += tokens

    def note_cache(self, queries: int, hits: int) -> None:
        """The model's own counts of the prompts' tokens in its cache, since it was loaded."""
        for name, total in (("prefix_cache_queries", queries), ("prefix_cache_hits", hits)):
            self._counted[field(name, self._model)] += total - self._noted[name]
            self._noted[name] = total

    def count_end(self, generation: "GenerationMeter", state: str, code: str, seconds: float) -> None:
        """A generation has ended here, `seconds` after its request."""
        self._counted[field("generations_ended", self._model, state, code)] += 1
        self._count_tokens("prompt_tokens", generation.key, generation.prompt_tokens)
        self.whole.add(seconds)

    def take(self) -> dict[str, int]:
        """The increments since the last call, and those that were put back."""
        for generation in self._open:
            self._settle(generation)
        taken, self._untaken = self._untaken, {}
        counted, self._counted = +self._counted, Counter()
        histograms = (self.first, self.gaps, self.waits, self.whole, self.appends)
        for more in (*(histogram.take() for histogram in histograms), counted):
            for name, by in more.items():
                taken[name] = taken.get(name, 0) + by
        return taken

    def put_back(self, taken: dict[str, int]) -> None:
        """They could not be reported. Call before the next `take`."""
        self._untaken = taken


class GenerationMeter:
    """One generation in this engine, until `close`.

    A model that sends `{"text": …}` with a list as `resume` has one item in it for each token, as the chat model does.
    Others may say at the end, by `usage`, how many tokens there were.
    """

    __slots__ = (
        "_counts",
        "_engine",
        "_is_new",
        "_last_at",
        "_taken_at",
        "_taken_tokens",
        "_tokens",
        "first_at",
        "key",
        "prompt_tokens",
    )

    def __init__(
        self, engine: EngineMeter, submitted_at: float, delivered: Iterable[bytes] = (), key: str = ""
    ) -> None:
        """`submitted_at`: when it was requested, by the caller's clock. `delivered`: the `resume` of each output that
        an engine delivered before it died. The pause until this one's first output counts as neither time. `key`: the
        name of the API key that requested it."""
        tokens = [items_in(resume) for resume in delivered]
        self.key = key
        self.prompt_tokens = 0
        self._engine = engine
        self._counts = engine.gaps.counts
        self._last_at = self._taken_at = submitted_at
        self._is_new = not tokens
        self.first_at: float | None = None
        """When the first output of this engine came."""
        self._tokens = self._taken_tokens = sum(tokens)
        engine.open(self)

    def note(self, now: float, tokens: int) -> None:
        """One output. Runs for every token. `tokens`: how many it has, if that is known, or 0."""
        gap = now - self._last_at
        self._last_at = now
        self._tokens += tokens
        if tokens > 1 or self.first_at is None:
            self._note_unusual(now, gap, tokens)
        else:
            # `Histogram.add` would cost another call.
            self._counts[bisect_left(BOUNDS, gap)] += 1

    def _note_unusual(self, now: float, gap: float, tokens: int) -> None:
        """The first output, or several tokens that came together, perhaps because nobody watches."""
        if self.first_at is not None:
            self._counts[bisect_left(BOUNDS, gap / tokens)] += tokens
            return
        self.first_at = self._taken_at = now
        if self._is_new:
            self._engine.first.add(gap)

    def end(self, usage: Any) -> None:
        """The model's end. `usage`: what it says it has used, in all."""
        total = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(total, int):
            self._tokens = max(total, self._tokens)
        prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        self.prompt_tokens = prompt if isinstance(prompt, int) else 0

    def estimate_prompt(self, text_bytes: int) -> None:
        """The prompt's tokens, for a generation that ends before its model has said how many there are."""
        self.prompt_tokens = self.prompt_tokens or text_bytes // BYTES_PER_TOKEN

    @property
    def last_at(self) -> float:
        """When the last output came."""
        return self._last_at

    @property
    def answer_tokens(self) -> int:
        """So far, whichever engines generated them."""
        return self._tokens

    @property
    def tokens(self) -> int:
        """Of the answer so far; after the end also of the prompt."""
        return self._tokens + self.prompt_tokens

    def take(self) -> tuple[int, float]:
        """Tokens, and the sum of the times between outputs, since the last call."""
        taken = self._tokens - self._taken_tokens, self._last_at - self._taken_at
        self._taken_tokens, self._taken_at = self._tokens, self._last_at
        return taken

    def close(self) -> None:
        self._engine.close(self)


def items_in(resume: bytes) -> int:
    """Of a list in JSON whose items are numbers; 0 for anything else."""
    return resume.count(b",") + 1 if resume.startswith(b"[") and resume != b"[]" else 0
