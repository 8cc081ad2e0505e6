"""The state of the whole service at one moment, as the log has it. Pure. Made by `web_log`."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec

from everstream.log.counters import COUNTERS, labelled
from everstream.log.histograms import KINDS, Totals, summed, totals
from everstream.log.records import EngineStatus, Status, WorkerStatus, decode_status


class Figures(msgspec.Struct, frozen=True, dict=True):
    """`at`: Unix time, by Valkey's clock. `counters`: all of `counters.COUNTERS`. `engines`: those that have reported
    within their lease. `by_model`: each of `histograms.KINDS`, by model. `labelled`: as in `counters`. `workers`: those
    that have reported within the last seconds."""

    at: float
    counters: dict[str, int]
    by_model: dict[str, dict[str, Totals]]
    labelled: dict[str, dict[tuple[str, ...], int]]
    engines: list[EngineStatus]
    queued: int
    log_bytes: int
    streams: int
    oldest_queued_s: float = 0
    validations: int = 0
    workers: list[WorkerStatus] = []
    topic_bytes: int = 0

    @cached_property
    def histograms(self) -> dict[str, Totals]:
        """Of all models together."""
        return {kind.name: summed(kind, self.by_model[kind.name].values()) for kind in KINDS}

    def gauges(self) -> dict[str, float]:
        """All of `counters.GAUGES`."""
        ready = [engine for engine in self.engines if engine.state == "ready"]
        return {
            "engines": len(ready),
            "generations_running": sum(engine.running for engine in ready),
            "generations_queued": self.queued,
            "streams_open": self.streams,
            "log_bytes": self.log_bytes,
            "topic_bytes": self.topic_bytes,
            "oldest_queued_seconds": self.oldest_queued_s,
            "validations_waiting": self.validations,
        }


def decode(reply: Sequence[Any], queues: Sequence[str]) -> Figures:
    """What `figures.lua` returned, with the engines of these queues."""
    at_ms, counted, statuses, queued, log_bytes, streams, oldest_ms, validations, workers, topic_bytes = reply
    known = {name.decode(): int(value) for name, value in zip(counted[::2], counted[1::2], strict=True)}
    engines = [status for status in _decoded(statuses, EngineStatus) if status.queue in queues]
    return Figures(
        at_ms / 1000,
        {name: known.get(name, 0) for name in COUNTERS},
        {kind.name: totals(kind, known) for kind in KINDS},
        labelled(known),
        engines,
        queued,
        log_bytes,
        streams,
        oldest_ms / 1000,
        validations,
        _decoded(workers, WorkerStatus),
        topic_bytes,
    )


def _decoded(reports: Sequence[bytes], kind: type[Status]) -> list[Status]:
    return [status for report in reports if (status := decode_status(report, kind))]
