"""OpenTelemetry's SDK, as far as Everstream uses it. Imported by `tracing` alone, and only if traces are on.

In: spans of web and engine processes. Out: OTLP over HTTP, from a thread of the SDK's. Its queue is bounded: while the
collector is away or slow, spans are dropped, and nothing waits for them. The SDK reads its own OTEL_* variables.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from everstream import __version__

logger = logging.getLogger(__name__)

STOP_S = 2.0
"""How long a process that ends waits for its last spans to be sent."""
BATCH_SPANS = 128
"""Unless the operator chooses. Encoding the SDK's own 512 would stop a web process's event loop for 15 ms."""
LOG_EVERY_S = 60.0
LOG_CHARS = 500
UNNAMED = "unknown_service"
"""What the SDK calls a service without a name."""

Value = str | int | float | bool | list[str]


class Span:
    """A span that has begun. Unless it is sampled, nothing keeps what it is given."""

    __slots__ = ("_span",)

    def __init__(self, span: SdkSpan) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def context(self) -> Context:
        """For its children."""
        return set_span_in_context(self._span, Context())

    def set(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def add_event(self, name: str, attributes: Mapping[str, Value]) -> None:
        self._span.add_event(name, attributes)

    def fail(self, error_type: str) -> None:
        """`error_type`: a code. Messages may quote prompts."""
        self._span.set_attribute("error.type", error_type)
        self._span.set_status(StatusCode.ERROR)

    def end(self, at_ns: int | None = None) -> None:
        """`at_ns`: by the Unix clock, if not now."""
        self._span.end(at_ns)


def check_variables() -> None:
    """Have the SDK read its variables, from this process's environment. Raises ValueError."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_NoExporter(), max_export_batch_size=_batch_spans()))
    provider.shutdown()


class _NoExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002 - the SDK's signature
        return SpanExportResult.SUCCESS


class Tracing:
    """One per process. It sets none of the SDK's global objects, which a model's code may use for itself."""

    def __init__(self, service: str) -> None:
        _throttle_logs()
        self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_export_batch_size=_batch_spans()))
        self._tracer = self._provider.get_tracer("everstream", __version__)
        self._trace_context = TraceContextTextMapPropagator()

    def span(
        self,
        name: str,
        kind: str,
        parent: Span | Mapping[str, str],
        attributes: Mapping[str, Value],
        start_ns: int | None = None,
    ) -> Span:
        """`kind`: server, producer, consumer or internal. `parent`: one of this process, or the `traceparent` and
        `tracestate` of another. As the standard demands, malformed ones are ignored; this span then begins a trace.
        `start_ns`: by the Unix clock, if not now."""
        context = parent.context if isinstance(parent, Span) else self._trace_context.extract(parent, Context())
        return Span(self._tracer.start_span(name, context, SpanKind[kind.upper()], attributes, start_time=start_ns))

    def headers_of(self, span: Span) -> dict[str, str]:
        """Headers that let another process continue the trace."""
        headers: dict[str, str] = {}
        self._trace_context.inject(headers, span.context)
        return headers

    def stop(self) -> None:
        """Send what has not been sent, for at most STOP_S."""
        # The SDK itself would wait for 30 s.
        stopping = threading.Thread(target=self._provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(STOP_S)


def _batch_spans() -> int | None:
    """None: the SDK reads the operator's choice."""
    if os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"):
        return None
    queue = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
    return min(BATCH_SPANS, int(queue)) if queue.isdecimal() else BATCH_SPANS


def _resource(service: str) -> Resource:
    found = Resource.create({SERVICE_VERSION: __version__})
    if str(found.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
        return found.merge(Resource({SERVICE_NAME: service}))
    return found


class _Throttled(logging.Handler):
    """Passes on the first message from a place in the SDK, and then one a minute."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logged_at: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        place, now = (record.name, record.lineno), time.monotonic()
        if now - self._logged_at.get(place, -math.inf) >= LOG_EVERY_S:
            self._logged_at[place] = now
            logger.warning("OpenTelemetry: %s", record.getMessage()[:LOG_CHARS])


def _throttle_logs() -> None:
    """The SDK logs each batch that a collector doesn't take."""
    sdk_logger = logging.getLogger("opentelemetry")
    sdk_logger.addHandler(_Throttled())
    sdk_logger.propagate = False
    # It quotes malformed headers, which are the clients' own text.
    logging.getLogger("opentelemetry.trace").setLevel(logging.CRITICAL)
