"""Traces, as a collector gets them from the real processes."""

import os
import secrets
import signal
import subprocess
import sys
from urllib.parse import quote

import pytest
import requests

from everstream.settings import PROJECT_ROOT
from harness.callers import Caller, keys
from harness.otlp_collector import running_collector
from harness.sse_client import assert_whole, connect, read_all
from harness.stack import WEB, running_stack
from tests.stack.test_access_log import lines, wait_for_line

TIMEOUT_S = 60
PROMPT, ANSWER = "a secret prompt", "a secret answer"
REQUEST_ID = "0123456789abcdef0123"
CLOCK_NS = 2_000_000
"""Valkey knows the time of a request in milliseconds."""
IMPORT_BOTH = """
import os, sys
import everstream.engine.main, everstream.wsgi
from everstream import tracing
assert tracing.start("everstream-web") is None
print([name for name in sys.modules if name.split(".")[0] in ("opentelemetry", "google")])
"""


@pytest.fixture(scope="module")
def collector():
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(tmp_path_factory, collector):
    options = {"EVERSTREAM_ACCESS": "keys", "WEB_CONCURRENCY": "1", **collector.environ}
    with running_stack(tmp_path_factory.mktemp("traced"), **options) as stack:
        yield stack


@pytest.fixture(scope="module")
def alice(traced):
    return Caller(traced, keys(traced, "add", "alice"))


class Trace:
    """A caller's trace, which a request is to continue."""

    def __init__(self, flags="01"):
        self.id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {"traceparent": f"00-{self.id}-{self.span_id}-{flags}"}


def of(spans, name):
    (span,) = [span for span in spans if span.name == name]
    return span


def test_one_trace_from_the_request_to_its_end(traced, alice, collector):
    trace, model = Trace(), traced.settings.model_name
    assert_whole(read_all(f"{traced.url}/stream?texts=a&texts=b", headers=alice.headers | trace.headers))
    server = collector.wait_for("GET /stream", trace_id=trace.id)
    generate = collector.wait_for(f"generate_content {model}", trace_id=trace.id)
    spans = collector.spans(trace.id)
    names = {"GET /stream", f"send {model}", "queue", f"generate_content {model}", "prefill", "decode"}
    assert {span.name for span in spans} == names and len(spans) == len(names)
    send, queue, prefill, decode = (of(spans, name) for name in (f"send {model}", "queue", "prefill", "decode"))
    # Who called whom.
    assert (server.parent_id, send.parent_id) == (trace.span_id, server.span_id)
    assert queue.parent_id == generate.parent_id == send.span_id
    assert prefill.parent_id == decode.parent_id == generate.span_id
    assert {server.service, send.service} == {"everstream-web"}
    assert {queue.service, generate.service, prefill.service, decode.service} == {"everstream-engine"}
    assert [span.kind for span in (server, send, queue, generate)] == ["SERVER", "PRODUCER", "INTERNAL", "CONSUMER"]
    # And when.
    assert server.start <= send.start <= queue.start + CLOCK_NS
    assert queue.end == generate.start == prefill.start <= prefill.end == decode.start <= decode.end
    assert decode.end <= generate.end + CLOCK_NS and decode.end <= server.end + CLOCK_NS
    assert not any(span.is_error for span in spans)


def test_attributes_follow_the_conventions(traced, alice, collector):
    trace, model = Trace(), traced.settings.model_name
    headers = alice.headers | trace.headers | {"X-Request-Id": "mine"}
    read_all(f"{traced.url}/stream?texts=a&texts=b", headers=headers)
    server = collector.wait_for("GET /stream", trace_id=trace.id)
    generate = collector.wait_for(f"generate_content {model}", trace_id=trace.id)
    shown = generate.attributes["everstream.generation"]
    assert len(shown) == 8
    assert server.attributes == {
        "http.request.method": "GET",
        "http.route": "/stream",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "gen_ai.request.model": model,
        "everstream.request_id": "mine",
        "everstream.generation": shown,
    }
    assert server.events == [
        {"name": "stream_end", "everstream.generation": shown, "everstream.ended": "done", "everstream.entries": 3}
    ]
    expected = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.request.model": model,
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.response.finish_reasons": ["stop"],
        "messaging.system": "valkey",
        "messaging.operation.type": "process",
        "everstream.request_id": "mine",
        "everstream.ended": "done",
    }
    assert expected.items() <= generate.attributes.items()
    for part in (traced.web, traced.engines[0]):
        assert wait_for_line(part, request_id="mine")["trace_id"] == trace.id
    assert wait_for_line(traced.web, event="stream_end", request_id="mine")["trace_id"] == trace.id


def test_span_of_a_reader_lasts_as_long_as_its_stream(traced, alice, collector, gate):
    trace, route = Trace(), "GET /generations/<generation>/events"
    generation = alice.start(texts=["a", "b"], hold_before=2, gate=gate.path)
    headers = alice.headers | trace.headers
    with connect(traced.events_url(generation), headers=headers) as stream:
        stream.read(lambda got: any(event.type == "message" for event in got.events))
        # A later request's span has come, and this one's has not.
        alice.call("GET", "/models", headers=(later := Trace()).headers)
        collector.wait_for("GET /models", trace_id=later.id)
        assert collector.spans(trace.id) == []
    assert collector.wait_for(route, trace_id=trace.id).events[0]["everstream.ended"] == "left"
    gate.open()


def test_joined_streams_are_one_span(traced, alice, collector):
    trace, ids = Trace(), [alice.start(texts=["a"]) for _ in range(2)]
    query = "&".join(f"generation={generation}" for generation in ids)
    read_all(f"{traced.url}/events?{query}", headers=alice.headers | trace.headers)
    events = collector.wait_for("GET /events", trace_id=trace.id).events
    assert {event["everstream.generation"] for event in events} == {generation[:8] for generation in ids}


def test_responses_without_a_body_end_their_spans_too(traced, alice, collector):
    for method, path in (("HEAD", "/models"), ("OPTIONS", "/models"), ("GET", "/nowhere")):
        alice.call(method, path, headers=(trace := Trace()).headers)
        name = method if path == "/nowhere" else f"{method} {path}"
        assert collector.wait_for(name, trace_id=trace.id).attributes["http.request.method"] == method


def test_methods_that_clients_invent_are_one(traced, alice, collector):
    alice.call("INVENTED", "/models", headers=(trace := Trace()).headers)
    assert collector.wait_for("HTTP", trace_id=trace.id).attributes["http.request.method"] == "_OTHER"


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        f"00-{'0' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'1' * 16}-01",
        f"00-{'A' * 32}-{'1' * 16}-01",
        f"00-{'1' * 32}-{'1' * 16}-01-more",
        f"00-{'1' * 32}-{'1' * 16}-01, 00-{'2' * 32}-{'1' * 16}-01",
        f"01-{'1' * 32}-{'1' * 16}-01-{'x' * 4000}",
    ],
)
def test_malformed_traceparents_are_ignored(traced, alice, collector, traceparent):
    request_id = f"malformed-{secrets.token_hex(4)}"
    alice.call(
        "POST", "/generations", json={"texts": ["a"]}, headers={"traceparent": traceparent, "x-request-id": request_id}
    )
    trace_id = wait_for_line(traced.web, event="request", request_id=request_id)["trace_id"]
    assert trace_id.strip("0") and trace_id not in ("1" * 32, "2" * 32)
    assert collector.wait_for("POST /generations", trace_id=trace_id).parent_id == ""
    collector.wait_for("decode", trace_id=trace_id)


def test_tracestate_goes_along_unless_it_is_too_long(traced, alice, collector):
    for tracestate in ("vendor=value", "vendor=" + "x" * 5000):
        trace = Trace()
        headers = trace.headers | {"tracestate": tracestate}
        assert alice.call("POST", "/generations", json={"texts": ["a"]}, headers=headers).status_code == 201
        collector.wait_for("decode", trace_id=trace.id)
    # Nor do the clients' headers come into the log.
    assert "vendor" not in traced.web.output + traced.engines[0].output


def test_what_the_caller_does_not_sample_is_not_exported(traced, alice, collector):
    unsampled, sampled = Trace("00"), Trace("01")
    for trace in (unsampled, sampled):
        read_all(f"{traced.url}/stream?texts=a", headers=alice.headers | trace.headers)
    # The spans of each process come in order.
    collector.wait_for("decode", trace_id=sampled.id)
    collector.wait_for("GET /stream", trace_id=sampled.id)
    assert collector.spans(unsampled.id) == []
    assert any(line.get("trace_id") == unsampled.id for line in lines(traced.engines[0]))


def test_failure_has_its_code(traced, alice, collector):
    trace, model = Trace(), traced.settings.model_name
    headers = alice.headers | trace.headers
    read_all(f"{traced.url}/stream?texts=a&texts=b&raise_before=2", headers=headers)
    for name in (f"generate_content {model}", "GET /stream"):
        span = collector.wait_for(name, trace_id=trace.id)
        assert span.is_error
    generate = of(collector.spans(trace.id), f"generate_content {model}")
    assert generate.attributes["error.type"] == "model_error" and generate.attributes["everstream.ended"] == "failed"
    assert not any(b"told to raise" in body for body in collector.bodies)


def test_refused_job_is_an_error_of_its_span(tmp_path, collector):
    with running_stack(tmp_path, EVERSTREAM_MAX_QUEUED="1", EVERSTREAM_MAX_RUNNING="1", **collector.environ) as stack:
        gate = str(tmp_path / "gate")
        stack.submit(texts=["a"], hold_before=1, gate=gate)
        answers = [
            requests.post(
                f"{stack.url}/generations", json={"texts": ["a"]}, headers=(trace := Trace()).headers, timeout=TIMEOUT_S
            )
            for _ in range(3)
        ]
        assert answers[-1].status_code == 503
        send = collector.wait_for(f"send {stack.settings.model_name}", trace_id=trace.id)
        assert send.is_error and send.attributes["error.type"] == "queue_full"
        assert collector.wait_for("POST /generations", trace_id=trace.id).is_error


def test_takeover_is_a_further_span_of_the_same_trace(own_stack, collector, gate):
    stack, trace = own_stack(**collector.environ).start(engines=2), Trace()
    name = f"generate_content {stack.settings.model_name}"
    url = f"{stack.url}/stream?texts=a&texts=b&hold_before=2&gate={quote(gate.path)}&kill_after=1"
    with connect(url, headers=trace.headers) as stream:
        stream.read(lambda got: any(event.type == "message" for event in got.events))
        queue = collector.wait_for("queue", trace_id=trace.id)
        gate.open()
        stream.read(lambda got: any(event.type == "done" for event in got.events))
    generate = collector.wait_for(name, trace_id=trace.id)
    assert generate.attributes["everstream.attempt"] == 2 and generate.attributes["everstream.ended"] == "done"
    assert generate.attributes["gen_ai.usage.output_tokens"] == 2
    assert generate.parent_id == queue.parent_id and generate.start >= queue.end
    collector.wait_for("GET /stream", trace_id=trace.id)
    spans = collector.spans(trace.id)
    assert of(spans, "decode").parent_id == of(spans, "prefill").parent_id == generate.span_id
    # It waited in the queue only once.
    assert of(spans, "queue") == queue


def test_exports_have_no_prompts_outputs_keys_or_ids(traced, alice, collector):
    trace = Trace()
    headers = trace.headers
    path = f"/stream?texts={quote(ANSWER)}&request_id={REQUEST_ID}"
    read_all(traced.url + path, headers=alice.headers | headers)
    generation = alice.start(prompt=f'{{"texts": ["{PROMPT}"]}}')
    shared = alice.call("POST", "/shares", json={"generation": generation}).json()
    read_all(traced.url + shared["url"])
    for address in (
        f"/generations/{generation}?after=0",
        f"/nowhere/{generation}",
        f"/stream?texts={quote(PROMPT)}&x=1",
    ):
        alice.call("GET", address, headers=headers)
    alice.call("GET", "/models", headers=(last := Trace()).headers)
    collector.wait_for("GET /models", trace_id=last.id)
    collector.wait_for(f"generate_content {traced.settings.model_name}", trace_id=trace.id)
    whole = b"".join(collector.bodies)
    assert generation[:8].encode() in whole and b"/generations/<generation>" in whole
    key = alice.key.rpartition("-")[2]
    for secret in (PROMPT, ANSWER, quote(PROMPT), generation, REQUEST_ID, shared["ticket"], key):
        assert secret.encode() not in whole


def test_nothing_of_opentelemetry_is_imported_while_traces_are_off():
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_BOTH],
        cwd=PROJECT_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize("command", [WEB, [sys.executable, "-m", "everstream.engine.main"]])
def test_grpc_is_refused_at_the_start(own_stack, command):
    stack = own_stack(OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=stack.environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in done.stderr and "Traceback" not in done.stderr


def test_last_spans_are_sent_before_a_process_ends(own_stack):
    with running_collector() as collector:
        # Nothing is sent before the end.
        stack = own_stack(**collector.environ | {"OTEL_BSP_SCHEDULE_DELAY": "3600000"}).start()
        read_all(f"{stack.url}/stream?texts=a")
        wait_for_line(stack.engines[0], event="generation")
        assert collector.bodies == []
        for part in (stack.web, stack.engines[0]):
            part.kill(signal.SIGTERM)
        assert {"GET /stream", "decode"} <= {span.name for span in collector.spans()}


def test_stalled_collector_holds_up_no_stream_and_no_stop(own_stack, gate):
    with running_collector(is_stalled=True) as collector:
        limits = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
        stack = own_stack(**collector.environ, **limits, OTEL_EXPORTER_OTLP_TIMEOUT="3600", WEB_CONCURRENCY="1").start()
        read_all(f"{stack.url}/stream?texts=a")
        assert collector.held.wait(TIMEOUT_S)
        # More spans than the queue has room for.
        for _ in range(8):
            assert_whole(read_all(f"{stack.url}/stream?texts=a&texts=b"))
        stack.web.kill(signal.SIGTERM)
        stack.engines[0].kill(signal.SIGTERM)
        assert (stack.web.popen.returncode, stack.engines[0].popen.returncode) == (0, 0)
        # Each worker has ended by itself, before gunicorn would have killed it.
        assert stack.web.output.count("Worker exiting") == int(stack.environ["WEB_CONCURRENCY"])
        assert collector.bodies == []
        for part in (stack.web, stack.engines[0]):
            complaints = [line["message"] for line in lines(part) if "OpenTelemetry" in line.get("message", "")]
            assert len(complaints) == len(set(complaints))
