"""What vLLM's engine says about its key/value cache, for `/metrics`. Called by `vllm_start` and `chat_model`.

vLLM's own statistics make its front end observe every token. So only EngineCore collects them, once per step; AsyncLLM
keeps `log_stats` off. If vLLM's internals differ, the figures are missing, and nothing else is.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM, EngineCoreClient

from everstream.contract.model import CacheUse
from everstream.llm.vllm_internals import has

logger = logging.getLogger(__name__)


@contextmanager
def engine_stats_enabled() -> Iterator[None]:
    """EngineCore collects statistics if its AsyncLLM is made meanwhile, even one that collects none."""
    make = getattr(EngineCoreClient, "make_async_mp_client", None)
    if make is None:
        yield
        return

    def make_counting(*arguments: Any, **options: Any) -> Any:
        if "log_stats" in options:
            options["log_stats"] = True
        return make(*arguments, **options)

    EngineCoreClient.make_async_mp_client = staticmethod(make_counting)
    try:
        yield
    finally:
        EngineCoreClient.make_async_mp_client = staticmethod(make)


class CacheStats:
    """`use` None: nothing is known yet. With several data-parallel ranks, its `usage` is that of the last to step."""

    def __init__(self, llm: AsyncLLM) -> None:
        self.use: CacheUse | None = None
        self._queries = self._hits = 0
        if has(llm, "output_processor.update_scheduler_stats"):
            self._processor = llm.output_processor
            self._pass_on = self._processor.update_scheduler_stats
            self._processor.update_scheduler_stats = self._take

    def _take(self, stats: Any) -> None:
        """Replaces vLLM's own: called after each step."""
        self._pass_on(stats)
        if stats is None:
            return
        try:
            self._queries += stats.prefix_cache_stats.queries
            self._hits += stats.prefix_cache_stats.hits
            self.use = CacheUse(float(stats.kv_cache_usage), self._queries, self._hits)
        except Exception as error:
            # Raised here, it would fail all answers.
            self.use = None
            self._processor.update_scheduler_stats = self._pass_on
            logger.warning("vLLM's statistics differ, so /metrics lacks those of its cache: %r", error)
