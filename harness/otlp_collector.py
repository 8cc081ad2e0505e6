"""A collector of traces, as OpenTelemetry's exporters know it: OTLP over HTTP, in protobuf. Keeps what it gets."""

import gzip
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

from harness.stack import wait_for

PATH = "/v1/traces"


class Span(NamedTuple):
    """`events`: their attributes, each with its name. Times are in nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict
    events: list
    is_error: bool


class Collector(ThreadingHTTPServer):
    """`is_stalled`: it accepts requests, and answers none until it is stopped."""

    daemon_threads = True

    def __init__(self, *, is_stalled=False):
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_stalled = is_stalled
        self.bodies = []
        self.held = threading.Event()
        """Set once it has a request that it does not answer."""
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def environ(self):
        """For the processes that are to be traced."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def spans(self, trace_id=None):
        """All so far, or those of one trace."""
        found = [span for body in list(self.bodies) for span in decode(body)]
        return [span for span in found if trace_id in (None, span.trace_id)]

    def wait_for(self, name, count=1, **wanted):
        """Wait for `count` spans with this name and these fields; returns the last one."""

        def are_here():
            named = [span for span in self.spans() if span.name == name]
            found = [span for span in named if wanted.items() <= span._asdict().items()]
            return found[-1] if len(found) >= count else None

        return wait_for(are_here, what=f"{count} spans {name} with {wanted}")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != PATH or self.headers["Content-Type"] != "application/x-protobuf":
            self.send_error(400)
            return
        if self.server.is_stalled:
            self.server.held.set()
            self.server.released.wait()
        self.server.bodies.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def handle(self):
        # The process that exports may be killed.
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_):
        pass


def decode(body):
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _attributes(resource_spans.resource)["service.name"]
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    service,
                    span.name,
                    trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span),
                    [{"name": event.name, **_attributes(event)} for event in span.events],
                    span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                )


def _attributes(owner):
    return {each.key: _value(each.value) for each in owner.attributes}


def _value(value):
    if value.HasField("array_value"):
        return [_value(each) for each in value.array_value.values]
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def running_collector(**options):
    collector = Collector(**options)
    serving = threading.Thread(target=collector.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield collector
    finally:
        collector.released.set()
        collector.shutdown()
        serving.join()
        collector.server_close()
