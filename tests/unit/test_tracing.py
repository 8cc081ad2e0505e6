"""When requests are traced, and what is refused before a process starts."""

import logging

import pytest

from everstream import otel, tracing
from everstream.engine.traces import _harmless
from everstream.otel import _Throttled
from everstream.settings import SettingsError

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "are_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": ""}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_variables_that_turn_traces_on(environ, are_on):
    assert tracing.are_on(environ) == are_on
    tracing.check(environ)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER=console"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    ],
)
def test_what_cant_be_sent_is_refused(environ, named):
    with pytest.raises(SettingsError, match=named):
        tracing.check(environ)
    tracing.check(environ | {"OTEL_SDK_DISABLED": "true"})


def test_protocol_of_traces_counts_first():
    both = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
    tracing.check(ENDPOINT | both)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(tracing, "PACKAGES", {"there.is_none": "opentelemetry-sdk"})
    with pytest.raises(SettingsError, match=r"opentelemetry-sdk.*requirements-web\.txt"):
        tracing.check(ENDPOINT)
    tracing.check({})


def test_collector_that_is_away_fills_no_log(caplog):
    handler = _Throttled()
    for line in (10, 10, 20, 10):
        handler.emit(logging.LogRecord("sdk", logging.ERROR, "", line, "failed at %s", (line,), None))
    assert [record.getMessage() for record in caplog.records] == [
        "OpenTelemetry: failed at 10",
        "OpenTelemetry: failed at 20",
    ]


@pytest.mark.parametrize("text", ["stop", "tool_calls", "context_length_exceeded", "model-error"])
def test_words_are_exported(text):
    assert _harmless(text) == text


@pytest.mark.parametrize("text", ["", "the prompt's text", "x" * 41, "Stop"])
def test_anything_else_is_not(text):
    assert _harmless(text) == "_OTHER"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "x"),
    ],
)
def test_what_the_sdk_refuses_is_refused_at_the_start(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="OTEL_"):
        tracing.check(ENDPOINT)


@pytest.mark.parametrize(("queue", "batch"), [("", 128), ("100", 100), ("1024", 128)])
def test_batches_are_small_and_fit_into_the_queue(monkeypatch, queue, batch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", queue)
    assert otel._batch_spans() == batch
    tracing.check(ENDPOINT)
