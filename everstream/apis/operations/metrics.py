"""Counters, gauges and histograms of the whole service, in Prometheus's text format. Pure. Called by `routes`.

The counters live in the log, so any web process shows the totals of all processes, and a restart does not reset them.
Gauges are of the moment: each process reports its own, and one that is gone is not shown.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from everstream import __version__
from everstream.log.counters import COUNTERS, GAUGES, LABELLED
from everstream.log.figures import Figures
from everstream.log.histograms import KINDS, Kind, Totals

__all__ = ["CONTENT_TYPE", "exposition"]

ENGINE_STATES = ("loading", "ready", "draining", "failed")
WORKER_GAUGES = {
    "streams": ("worker_streams", "event streams that a web process has open"),
    "connections": ("worker_connections", "connections that a web process has open"),
    "lag_s": ("worker_event_loop_lag_seconds", "how late its event loop was at most in the last second"),
    "memory_bytes": ("worker_memory_bytes", "its resident memory"),
    "cpu_s": ("worker_cpu_seconds", "its processor time so far"),
}
VALKEY_GAUGES = {
    "used_memory": ("valkey_memory_bytes", "memory that Valkey uses"),
    "maxmemory": ("valkey_memory_max_bytes", "memory that Valkey may use; 0: any"),
    "aof_current_size": ("valkey_aof_bytes", "size of Valkey's append-only file"),
    "aof_delayed_fsync": ("valkey_delayed_fsyncs", "fsyncs that Valkey's disk delayed, since Valkey started"),
}


class _FixedMetrics:
    """A collector of metrics with fixed values."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics


def exposition(figures: Figures, valkey: Mapping[str, Any]) -> bytes:
    """The body of /metrics: each name in `log.counters` and `log.histograms` with the prefix `everstream_`. `valkey`:
    its own INFO."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        _FixedMetrics([*_counters(figures), *_gauges(figures, valkey), *map(_histogram_of(figures), KINDS)])
    )
    return generate_latest(registry)


def _counters(figures: Figures) -> Iterator[Metric]:
    for name, value in figures.counters.items():
        yield CounterMetricFamily(f"everstream_{name}", COUNTERS[name], value)
    for name, values in figures.labelled.items():
        family = CounterMetricFamily(f"everstream_{name}", LABELLED[name].help, labels=LABELLED[name].labels)
        for labels, value in sorted(values.items()):
            family.add_metric(labels, value)
        yield family


def _gauges(figures: Figures, valkey: Mapping[str, Any]) -> Iterator[Metric]:
    for name, value in figures.gauges().items():
        yield GaugeMetricFamily(f"everstream_{name}", GAUGES[name], value)
    for field, (name, about) in VALKEY_GAUGES.items():
        if field in valkey:
            yield GaugeMetricFamily(f"everstream_{name}", about, float(valkey[field]))
    for field, (name, about) in WORKER_GAUGES.items():
        family = GaugeMetricFamily(f"everstream_{name}", about, labels=["worker"])
        for worker in figures.workers:
            family.add_metric([worker.name], getattr(worker, field))
        yield family
    yield from _engines(figures)
    build = GaugeMetricFamily("everstream_build_info", "the version of the process that answers", labels=["version"])
    build.add_metric([__version__], 1)
    yield build


def _engines(figures: Figures) -> Iterator[Metric]:
    states = GaugeMetricFamily("everstream_engine_state", "1: the engine is in it", labels=["engine", "model", "state"])
    running = GaugeMetricFamily("everstream_engine_running", "generations that it runs", labels=["engine", "model"])
    usage = GaugeMetricFamily(
        "everstream_engine_cache_usage", "fraction of its key/value cache in use", labels=["engine", "model"]
    )
    for engine in figures.engines:
        for state in ENGINE_STATES:
            states.add_metric([engine.name, engine.model, state], int(engine.state == state))
        running.add_metric([engine.name, engine.model], engine.running)
        if engine.cache_usage is not None:
            usage.add_metric([engine.name, engine.model], engine.cache_usage)
    yield from (states, running, usage)


def _histogram_of(figures: Figures) -> Any:
    def made(kind: Kind) -> HistogramMetricFamily:
        family = HistogramMetricFamily(f"everstream_{kind.name}", kind.help, labels=["model"])
        for model, totals in figures.by_model[kind.name].items():
            family.add_metric([model], _buckets(totals), totals.sum_s)
        return family

    return made


def _buckets(totals: Totals) -> list[tuple[str, float]]:
    cumulative = itertools.accumulate(totals.counts)
    return list(zip([*map(str, totals.kind.bounds), "+Inf"], cumulative, strict=True))
