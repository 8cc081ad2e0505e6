"""What the dashboard shows, from samples of the service's figures. Pure. Called by `sampler`.

In: `Figures`, about one a second. Out: what they say now, and a point of each for the charts. Counters only grow, so
rates and percentiles come from the difference of two samples.
"""

from collections import deque
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from everstream.apis.dashboard.percentiles import Percentiles, percentiles
from everstream.log.figures import Figures
from everstream.log.histograms import INTER_TOKEN_LATENCY, KINDS, TIME_TO_FIRST_TOKEN

CHART_S = 300.0
WINDOW_S = 60.0
"""Of the percentiles."""
RATE_S = 5.0
"""Of the rates: engines report twice a second, so a shorter time would show their rhythm."""
GAP_S = 5.0
"""Samples are taken only while someone watches: those before a longer gap say nothing about the last minute."""
SHOWN = {
    "generations_started": "started",
    "generations_done": "done",
    "generations_failed": "failed",
    "generations_cancelled": "cancelled",
    "tokens_generated": "tokens",
    "resumes": "resumes",
    "gaps_healed": "gaps_healed",
    "leases_taken_over": "taken_over",
}


class Point(Struct, frozen=True):
    """One moment; `at` is Unix time. Null: not known yet, or nothing was generated. `outputs_per_s`: pieces of answers,
    whether or not their model counts tokens."""

    at: float
    streams: int
    queued: int
    running: int
    tokens_per_s: float | None
    outputs_per_s: float | None
    time_to_first_token: Percentiles | None
    inter_token_latency: Percentiles | None


class Counts(Struct, frozen=True):
    """`taken_over`: generations that went on in another engine, after the death or the end of theirs."""

    started: int
    done: int
    failed: int
    cancelled: int
    tokens: int
    resumes: int
    gaps_healed: int
    taken_over: int


class Engine(Struct, frozen=True):
    name: str
    model: str
    state: Literal["ready", "loading", "draining", "failed"]
    running: int
    uptime_s: int | None


class LogSize(Struct, frozen=True):
    bytes: int
    max_bytes: int


class Shown(Struct, frozen=True):
    """`totals`: since the log began. `recent`: of the last `window_s`, as are the percentiles."""

    point: Point
    window_s: float
    totals: Counts
    recent: Counts
    engines: list[Engine]
    log: LogSize


class History:
    """The samples of the last minute, and the points of the last five."""

    def __init__(self, max_log_bytes: int) -> None:
        self._max_log_bytes = max_log_bytes
        self._samples: deque[Figures] = deque()
        self._points: deque[Point] = deque()

    @property
    def points(self) -> list[Point]:
        return list(self._points)

    def add(self, figures: Figures) -> Shown:
        if self._samples and _began_anew(self._samples[-1], figures):
            self._samples.clear()
            self._points.clear()
        if self._samples and figures.at - self._samples[-1].at > GAP_S:
            self._samples.clear()
        self._samples.append(figures)
        # Keep one sample that is older than the window, to compare with.
        while len(self._samples) > 2 and self._samples[1].at <= figures.at - WINDOW_S:
            self._samples.popleft()
        point = self._point(figures)
        self._points.append(point)
        while self._points[0].at < figures.at - CHART_S:
            self._points.popleft()
        return self._shown(figures, point)

    def _before(self, figures: Figures, span_s: float) -> Figures:
        """The newest sample that is at least so much older, or the oldest."""
        older = [sample for sample in self._samples if sample.at <= figures.at - span_s]
        return older[-1] if older else self._samples[0]

    def _point(self, figures: Figures) -> Point:
        gauges, earlier, window = figures.gauges(), self._before(figures, RATE_S), self._before(figures, WINDOW_S)
        return Point(
            figures.at,
            figures.streams,
            figures.queued,
            int(gauges["generations_running"]),
            _rate(earlier, figures, earlier.counters["tokens_generated"], figures.counters["tokens_generated"]),
            _rate(earlier, figures, _outputs(earlier), _outputs(figures)),
            _percentiles(window, figures, TIME_TO_FIRST_TOKEN.name),
            _percentiles(window, figures, INTER_TOKEN_LATENCY.name),
        )

    def _shown(self, figures: Figures, point: Point) -> Shown:
        window = self._before(figures, WINDOW_S)
        return Shown(
            point,
            round(figures.at - window.at, 1),
            _counts(figures.counters),
            _counts({name: figures.counters[name] - window.counters[name] for name in SHOWN}),
            [Engine(each.name, each.model, each.state, each.running, each.uptime_s) for each in figures.engines],  # type: ignore[arg-type]
            LogSize(figures.log_bytes, self._max_log_bytes),
        )


def _counts(counters: Mapping[str, int]) -> Counts:
    return Counts(**{shown: counters[name] for name, shown in SHOWN.items()})


def _began_anew(before: Figures, after: Figures) -> bool:
    """Whether the log has lost its counters."""
    shrank = any(after.counters[name] < count for name, count in before.counters.items())
    return shrank or after.at < before.at or any(_shrank(before, after, kind.name) for kind in KINDS)


def _shrank(before: Figures, after: Figures, name: str) -> bool:
    counts = zip(after.histograms[name].counts, before.histograms[name].counts, strict=True)
    return any(now < earlier for now, earlier in counts)


def _outputs(figures: Figures) -> int:
    timed = (TIME_TO_FIRST_TOKEN.name, INTER_TOKEN_LATENCY.name)
    return sum(sum(figures.histograms[name].counts) for name in timed)


def _rate(before: Figures, after: Figures, earlier: int, now: int) -> float | None:
    span_s = after.at - before.at
    return round((now - earlier) / span_s, 2) if span_s > 0 else None


def _percentiles(before: Figures, after: Figures, name: str) -> Percentiles | None:
    now, earlier = after.histograms[name], before.histograms[name]
    return percentiles(now.kind.bounds, [one - other for one, other in zip(now.counts, earlier.counts, strict=True)])
