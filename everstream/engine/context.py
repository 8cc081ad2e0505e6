"""State that all generations of one engine share."""

import asyncio
from typing import TYPE_CHECKING

import msgspec

from everstream.contract.model import Model
from everstream.engine.appender import Appender
from everstream.engine.coalescer import FlushClocks
from everstream.engine.meter import EngineMeter
from everstream.log.engine_log import EngineLog
from everstream.settings import Settings

if TYPE_CHECKING:
    from everstream.otel import Tracing


class EngineContext(msgspec.Struct, frozen=True):
    """`trial` is held by a generation that is suspected of killing engines."""

    settings: Settings
    model: Model
    log: EngineLog
    appender: Appender
    trial: asyncio.Lock
    flush_clocks: FlushClocks
    meter: EngineMeter
    tracing: "Tracing | None" = None
