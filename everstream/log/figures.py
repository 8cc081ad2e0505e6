"""The state of the whole service at one moment, as the log has it. Pure. Made by `web_log`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from everstream.log.counters import COUNTERS
from everstream.log.histograms import KINDS, Totals, totals
from everstream.log.records import EngineStatus, decode_status


class Figures(msgspec.Struct, frozen=True):
    """`at`: Unix time, by Valkey's clock. `counters`: all of `counters.COUNTERS`. `engines`: those that have reported
    within their lease. `histograms`: one of each of `histograms.KINDS`."""

    at: float
    counters: dict[str, int]
    histograms: dict[str, Totals]
    engines: list[EngineStatus]
    queued: int
    log_bytes: int
    streams: int

    def gauges(self) -> dict[str, int]:
        """All of `counters.GAUGES`."""
        ready = [engine for engine in self.engines if engine.state == "ready"]
        return {
            "engines": len(ready),
            "generations_running": sum(engine.running for engine in ready),
            "generations_queued": self.queued,
            "streams_open": self.streams,
            "log_bytes": self.log_bytes,
        }


def decode(reply: Sequence[Any], queues: Sequence[str]) -> Figures:
    """What `figures.lua` returned, with the engines of these queues."""
    at_ms, counted, statuses, queued, log_bytes, streams = reply
    known = {name.decode(): int(value) for name, value in zip(counted[::2], counted[1::2], strict=True)}
    engines = [status for status in map(decode_status, statuses) if status and status.queue in queues]
    return Figures(
        at_ms / 1000,
        {name: known.get(name, 0) for name in COUNTERS},
        {kind.name: totals(kind, known) for kind in KINDS},
        engines,
        queued,
        log_bytes,
        streams,
    )
