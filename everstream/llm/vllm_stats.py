"""What vLLM's engine says about its key/value cache, for `/metrics`. Called by `vllm_start` and `chat_model`.

vLLM's own statistics make its front end observe every token. Here only its engine counts, once per step: it is told to,
and AsyncLLM is not. If vLLM's internals differ, the figures are missing, and nothing else is.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM, EngineCoreClient

from everstream.contract.model import CacheUse
from everstream.llm.vllm_internals import has

logger = logging.getLogger(__name__)

MAKE = "make_async_mp_client"


@contextmanager
def engine_counts() -> Iterator[None]:
    """The engine of an AsyncLLM that is made meanwhile counts, whatever the AsyncLLM itself does."""
    make = getattr(EngineCoreClient, MAKE, None)
    if make is None:
        yield
        return

    def make_counting(*arguments: Any, **options: Any) -> Any:
        if "log_stats" in options:
            options["log_stats"] = True
        return make(*arguments, **options)

    setattr(EngineCoreClient, MAKE, staticmethod(make_counting))
    try:
        yield
    finally:
        setattr(EngineCoreClient, MAKE, staticmethod(make))


class CacheStats:
    """`use` None: nothing is known yet."""

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
