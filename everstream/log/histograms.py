"""Histograms of the engines' timings, which the log keeps as counters. Pure.

Each bucket of each model has a counter of its own, not cumulative, named by its upper bound; one more has the sum, in
microseconds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec

from everstream.log.counters import SEPARATOR, field


class Kind(msgspec.Struct, frozen=True):
    """`bounds`: upper bounds of the buckets, in seconds; one more bucket has everything above."""

    name: str
    help: str
    bounds: tuple[float, ...]

    def fields(self, model: str) -> list[str]:
        """The counters of the buckets."""
        return [f"{field(self.name, model)}:{bound}" for bound in (*self.bounds, "inf")]

    def sum_field(self, model: str) -> str:
        return f"{field(self.name, model)}:sum_us"


TIME_TO_FIRST_TOKEN = Kind(
    "time_to_first_token_seconds",
    "time from the request to the model's first output",
    (
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
        *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
    ),
)
INTER_TOKEN_LATENCY = Kind(
    "inter_token_latency_seconds",
    "time between two tokens of a generation",
    (
        *(0.001, 0.0025, 0.005),
        *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
        *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    ),
)
"""Both have vLLM's own bounds, so that they can be compared with its figures. This one has three more below them: fast
models need less time."""
QUEUE_WAIT = Kind("queue_wait_seconds", "time that a generation waited for an engine", TIME_TO_FIRST_TOKEN.bounds)
GENERATION = Kind("generation_seconds", "time from the request to the end of the answer", TIME_TO_FIRST_TOKEN.bounds)
LOG_APPEND = Kind(
    "log_append_seconds",
    "time of a group commit to the log, with its fsync",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0),
)
KINDS = (TIME_TO_FIRST_TOKEN, INTER_TOKEN_LATENCY, QUEUE_WAIT, GENERATION, LOG_APPEND)


class Histogram:
    """Counts in one process. Hot code may change `counts` and `sum_s` without a call of `add`."""

    __slots__ = ("counts", "kind", "model", "sum_s")

    def __init__(self, kind: Kind, model: str = "") -> None:
        self.kind = kind
        self.model = model
        self.counts = [0] * (len(kind.bounds) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(self.kind.bounds, seconds)] += times
        self.sum_s += seconds * times

    def take(self) -> dict[str, int]:
        """What was added since the last call, as increments of the log's counters."""
        taken = {field: count for field, count in zip(self.kind.fields(self.model), self.counts, strict=True) if count}
        if taken:
            taken[self.kind.sum_field(self.model)] = round(self.sum_s * 1_000_000)
        # In place, because others hold the list.
        self.counts[:] = [0] * len(self.counts)
        self.sum_s = 0.0
        return taken


class Totals(msgspec.Struct, frozen=True):
    """A histogram as the log has it. `counts` is not cumulative."""

    kind: Kind
    counts: tuple[int, ...]
    sum_s: float = 0.0


def totals(kind: Kind, counters: Mapping[str, int]) -> dict[str, Totals]:
    """By model. `counters`: all that the log has, by name."""
    prefix = kind.name + SEPARATOR
    models = {name[len(prefix) :].rpartition(":")[0] for name in counters if name.startswith(prefix)}
    return {model: _totals(kind, model, counters) for model in sorted(models)}


def _totals(kind: Kind, model: str, counters: Mapping[str, int]) -> Totals:
    counts = tuple(counters.get(name, 0) for name in kind.fields(model))
    return Totals(kind, counts, counters.get(kind.sum_field(model), 0) / 1_000_000)


def summed(kind: Kind, each: Iterable[Totals]) -> Totals:
    """Of all models together."""
    parts = list(each)
    counts = tuple(map(sum, zip(*(part.counts for part in parts), strict=True))) or (0,) * (len(kind.bounds) + 1)
    return Totals(kind, counts, sum(part.sum_s for part in parts))
