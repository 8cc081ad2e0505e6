"""One line per generation that an engine has run, and the generation in every other line. Called by `main` and
`generation_task`."""

import asyncio
import logging
import re
import time
from typing import Any

from everstream.log.engine_log import Claim
from everstream.logs import ACCESS, SHOWN_DIGITS, access_line

logger = logging.getLogger(ACCESS)
_GENERATION = re.compile("[0-9a-f]{32}", re.ASCII)


def context() -> dict[str, Any]:
    """The generation whose task logs something: tasks are named after theirs."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return {}
    name = task.get_name() if task else ""
    return {"generation": name[:SHOWN_DIGITS]} if _GENERATION.fullmatch(name) else {}


def log_generation(claim: Claim, state: str, tokens: int, started_at: float, trace_id: str | None) -> None:
    """`state`: how it ended; empty: not here. `tokens`: of the prompt and the answer. `started_at`: when this engine
    began it, by the monotonic clock. `trace_id`: None without traces."""
    fields = {
        "event": "generation",
        "generation": claim.generation[:SHOWN_DIGITS],
        "ended": state or "elsewhere",
        "ms": round((time.monotonic() - started_at) * 1000),
        "queued_ms": round(claim.queued_s * 1000),
        "tokens": tokens,
        "taken_over": claim.taken_over or None,
        "request_id": claim.job.http_id or None,
        "trace_id": trace_id,
    }
    access_line(logger, fields)
