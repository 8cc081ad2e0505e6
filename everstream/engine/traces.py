"""The spans of one generation in one engine. Called by `generation_task`.

In: a claim, whose job has the web process's `traceparent`, and the times that `meter` has noted. Out: `queue`, from the
request to the claim; `generate_content`, from the claim to the end in the log; and in it `prefill`, up to the first
output, and `decode`, up to the last. They are made from those times at the end, so a token costs nothing. A killed
engine's spans are lost; the next engine's span has `everstream.attempt`.
"""

import re
import time
from typing import TYPE_CHECKING, Any

from everstream.engine.meter import GenerationMeter
from everstream.log.engine_log import Claim
from everstream.logs import SHOWN_DIGITS

if TYPE_CHECKING:
    from everstream.otel import Span, Tracing

NS = 1_000_000_000
_HARMLESS = re.compile(r"[a-z0-9_-]{1,40}", re.ASCII)
"""A model's own code chooses finish reasons and error codes, so they could quote something."""


class GenerationTrace:
    """Does nothing if traces are off."""

    __slots__ = ("_began_ns", "_clock_ns", "_span", "_tracing")

    def __init__(self, tracing: "Tracing | None", claim: Claim, model: str) -> None:
        self._tracing = tracing
        self._span: Span | None = None
        if tracing is None:
            return
        self._began_ns = time.time_ns()
        self._clock_ns = self._began_ns - time.monotonic_ns()
        parent = claim.job.trace
        shown = {"everstream.generation": claim.generation[:SHOWN_DIGITS]}
        if not claim.taken_over:
            queued_ns = round(claim.queued_s * NS)
            tracing.span("queue", "internal", parent, shown, self._began_ns - queued_ns).end(self._began_ns)
        attributes = {
            "messaging.system": "valkey",
            "messaging.operation.type": "process",
            "messaging.operation.name": "claim",
            "messaging.destination.name": model,
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "everstream",
            "gen_ai.request.model": model,
            **shown,
        }
        if claim.job.http_id:
            attributes["everstream.request_id"] = claim.job.http_id
        self._span = tracing.span(f"generate_content {model}", "consumer", parent, attributes, self._began_ns)

    @property
    def trace_id(self) -> str | None:
        return self._span.trace_id if self._span else None

    def note_attempt(self, attempt: int) -> None:
        """The engine before this one has died."""
        if self._span:
            self._span.set({"everstream.attempt": attempt})

    def note_finish(self, reason: Any) -> None:
        """The model's reason for ending."""
        if self._span and isinstance(reason, str):
            self._span.set({"gen_ai.response.finish_reasons": [_harmless(reason)]})

    def end(self, state: str, code: str, meter: GenerationMeter | None) -> None:
        """`state`: how it ended; empty: not here. `code`: of a failure."""
        if self._tracing is None or self._span is None:
            return
        self._span.set({"everstream.ended": state or "elsewhere"})
        if state == "failed":
            self._span.fail(_harmless(code))
        if meter is not None:
            self._add_phases(self._tracing, self._span, meter)
            self._span.set({"gen_ai.usage.output_tokens": meter.answer_tokens})
            # For any other end, it is an estimate.
            if state == "done" and meter.prompt_tokens:
                self._span.set({"gen_ai.usage.input_tokens": meter.prompt_tokens})
        self._span.end()

    def _add_phases(self, tracing: "Tracing", span: "Span", meter: GenerationMeter) -> None:
        if meter.first_at is None:
            return
        first_ns, last_ns = self._clock_ns + round(meter.first_at * NS), self._clock_ns + round(meter.last_at * NS)
        tracing.span("prefill", "internal", span, {}, self._began_ns).end(first_ns)
        tracing.span("decode", "internal", span, {}, first_ns).end(last_ns)


def _harmless(text: str) -> str:
    return text if _HARMLESS.fullmatch(text) else "_OTHER"
