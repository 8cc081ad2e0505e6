"""Counters and gauges of the whole service, in Prometheus's text format. Pure. Called by `routes`.

The counters live in the log, so any web process shows the totals of all processes, and a restart does not reset them.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from everstream.log.counters import COUNTERS, GAUGES

__all__ = ["CONTENT_TYPE", "exposition"]


class _FixedMetrics:
    """A collector of metrics with fixed values."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def exposition(counters: Mapping[str, int], gauges: Mapping[str, int]) -> bytes:
    """The body of /metrics: each name in `log.counters` with the prefix `everstream_`."""
    registry = CollectorRegistry(auto_describe=False)
    metrics: list[Metric] = [
        CounterMetricFamily(f"everstream_{name}", COUNTERS[name], value=value) for name, value in counters.items()
    ]
    metrics += [GaugeMetricFamily(f"everstream_{name}", GAUGES[name], value=value) for name, value in gauges.items()]
    registry.register(_FixedMetrics(metrics))
    return generate_latest(registry)
