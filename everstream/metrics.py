"""Counters and gauges of the whole service, in Prometheus' text format. Pure; `routes` calls.

The counters are in the log, so any web process shows those of all processes, and a restart does not set them back.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from everstream import log

__all__ = ["CONTENT_TYPE", "exposition"]


class _Found:
    """A collector of values that are known already."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def exposition(counters: Mapping[str, int], gauges: Mapping[str, int]) -> bytes:
    """The page of /metrics: names of `log.COUNTERS` and `log.GAUGES` with the prefix `everstream_`."""
    registry = CollectorRegistry(auto_describe=False)
    metrics: list[Metric] = [
        CounterMetricFamily(f"everstream_{name}", log.COUNTERS[name], value=value) for name, value in counters.items()
    ]
    metrics += [
        GaugeMetricFamily(f"everstream_{name}", log.GAUGES[name], value=value) for name, value in gauges.items()
    ]
    registry.register(_Found(metrics))
    return generate_latest(registry)
