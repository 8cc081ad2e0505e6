"""Streams that follow the same topic, together: what ends or wakes one must reach all of them."""

import http.client
import json
import re
import signal
from contextlib import ExitStack, closing

import pytest

from harness.stack import REQUEST_TIMEOUT_S, web_alone

FOLLOWERS = 5


@pytest.fixture
def stack(tmp_path):
    with web_alone(tmp_path) as stack:
        yield stack


@pytest.fixture
def connect(stack):
    with ExitStack() as connections:
        yield lambda: connections.enter_context(
            closing(http.client.HTTPConnection(stack.settings.address, timeout=REQUEST_TIMEOUT_S))
        )


@pytest.fixture
def streams(connect):
    """Of one topic. They have begun."""
    with ExitStack() as answers:
        streams = []
        for _ in range(FOLLOWERS):
            connection = connect()
            connection.request("GET", "/topics/news", headers={"Accept": "text/event-stream"})
            streams.append(answers.enter_context(connection.getresponse()))
            assert streams[-1].status == 200
            read_until(streams[-1], rb"event: open\n")
        yield streams


def read_until(stream, pattern, limit=200):
    """The lines up to the first that matches."""
    lines = []
    for _ in range(limit):
        lines.append(stream.readline())
        assert lines[-1], f"the stream ended after {lines}"
        if re.match(pattern, lines[-1]):
            return lines
    raise AssertionError(f"{limit} lines without {pattern}: {lines}")


def test_all_get_heartbeats(stack, streams):
    for stream in streams * 3:
        read_until(stream, rb": heartbeat\n")
    assert "can't send heartbeats" not in stack.web.output


def test_all_are_told_to_return_when_the_worker_stops(stack, streams):
    stack.web.popen.send_signal(signal.SIGTERM)
    for stream in streams:
        lines = stream.read().decode().splitlines()
        assert any(line.startswith("retry: ") for line in lines), lines
    stack.web.popen.wait(REQUEST_TIMEOUT_S)


def test_all_get_messages_between_heartbeats(connect, streams):
    publisher = connect()
    for n in range(3):
        for stream in streams:
            read_until(stream, rb": heartbeat\n")
        body = json.dumps({"data": {"n": n}})
        publisher.request("POST", "/topics/news", body, {"Content-Type": "application/json"})
        assert publisher.getresponse().read()
        for stream in streams:
            assert read_until(stream, rb"data: ")[-1] == b'data: {"n":%d}\n' % n
