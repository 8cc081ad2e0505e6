"""Counters, gauges and histograms of the whole service, in Prometheus's text format. Pure. Called by `routes`.

The counters live in the log, so any web process shows the totals of all processes, and a restart does not reset them.
"""

import itertools
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from everstream.log.counters import COUNTERS, GAUGES
from everstream.log.figures import Figures
from everstream.log.histograms import Totals

__all__ = ["CONTENT_TYPE", "exposition"]


class _FixedMetrics:
    """A collector of metrics with fixed values."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def exposition(figures: Figures) -> bytes:
    """The body of /metrics: each name in `log.counters` and `log.histograms` with the prefix `everstream_`."""
    registry = CollectorRegistry(auto_describe=False)
    counters, gauges = figures.counters.items(), figures.gauges().items()
    metrics: list[Metric] = [
        CounterMetricFamily(f"everstream_{name}", COUNTERS[name], value) for name, value in counters
    ]
    metrics += [GaugeMetricFamily(f"everstream_{name}", GAUGES[name], value) for name, value in gauges]
    metrics += map(_histogram, figures.histograms.values())
    registry.register(_FixedMetrics(metrics))
    return generate_latest(registry)


def _histogram(totals: Totals) -> HistogramMetricFamily:
    cumulative = itertools.accumulate(totals.counts)
    buckets = list(zip([*map(str, totals.kind.bounds), "+Inf"], cumulative, strict=True))
    return HistogramMetricFamily(f"everstream_{totals.kind.name}", totals.kind.help, buckets, totals.sum_s)
