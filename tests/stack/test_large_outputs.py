"""Outputs of 16 MiB reach slow readers whole, live and on resume. A reader that stalls is still cut."""

import http.client
import socket
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from harness.models.large.app import audio
from harness.sse_client import Decoder
from harness.stack import MODELS, running_stack, wait_for

SIZE = (16 << 20) - 64
"""With the rest of its JSON, almost as large as allowed."""
SEND_TIMEOUT_S = 1
READ_BYTES, PAUSE_S = 128 << 10, 1 / 16
"""2 MB/s: one output takes many times the send timeout."""
SMALL_BUFFER_BYTES = 64 << 10
REQUEST = {"size": SIZE, "count": 2}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    options = {
        "EVERSTREAM_MAX_OUTPUT_BYTES": "16777216",
        "EVERSTREAM_MAX_GENERATION_BYTES": "268435456",
        "EVERSTREAM_SEND_TIMEOUT_S": str(SEND_TIMEOUT_S),
        "EVERSTREAM_RETENTION_S": "3600",
        "WEB_CONCURRENCY": "1",
    }
    with running_stack(tmp_path_factory.mktemp("large"), app_dir=MODELS / "large", **options) as stack:
        yield stack
        assert "subscription failed" not in stack.web.output


@contextmanager
def opened(url, last_id=""):
    """The response, over a connection with a small buffer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.sock = socket.socket()
    connection.sock.settimeout(60)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    connection.sock.connect((parts.hostname, parts.port))
    connection.request("GET", parts.path, headers={"Last-Event-ID": last_id} if last_id else {})
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def read_slowly(response):
    """All events, read at an even pace."""
    data = bytearray()
    while piece := response.read(READ_BYTES):
        data += piece
        time.sleep(PAUSE_S)
    return Decoder().feed(bytes(data))


def assert_outputs(events, numbers):
    shown = [event.json for event in events if event.type == "message"]
    assert [output["n"] for output in shown] == list(numbers)
    for output in shown:
        # Not ==, whose report would be as large.
        assert (output["audio"] == audio(output["n"], SIZE)) is True
    assert events[-1].type == "done"


def test_large_outputs_reach_a_slow_reader_live_and_on_resume(large):
    generation = large.submit(**REQUEST)
    with opened(large.events_url(generation)) as live:
        assert_outputs(read_slowly(live), [0, 1])
    with opened(large.events_url(generation), f"{generation}.1") as resumed:
        assert_outputs(read_slowly(resumed), [1])
    assert large.metric("streams_stalled_total") == 0


def test_large_outputs_reach_a_fast_reader(large):
    body = requests.get(large.events_url(large.submit(**REQUEST)), timeout=60).content
    assert_outputs(Decoder().feed(body), [0, 1])


def test_large_outputs_in_one_piece(large):
    url = f"{large.url}/generations/{large.submit(**REQUEST)}"
    wait_for(lambda: requests.get(f"{url}?after=999999999", timeout=60).json()["state"] == "done")
    shown = requests.get(url, timeout=60).json()
    assert [len(output["audio"]) for output in shown["outputs"]] == [SIZE, SIZE]
    answer = requests.post(
        f"{large.url}/v2/models/{large.settings.model_name}/infer",
        json={"parameters": REQUEST},
        headers={"Accept": "application/json"},
        timeout=60,
    ).json()
    assert [tensor["name"] for tensor in answer["outputs"]] == ["n", "audio"] * 2
    assert (answer["outputs"][3]["data"] == [audio(1, SIZE)]) is True


def test_reader_that_stalls_is_cut(large):
    stalled = large.metric("streams_stalled_total")
    with opened(large.events_url(large.submit(**REQUEST))) as response:
        assert response.status == 200
        wait_for(lambda: large.metric("streams_stalled_total") == stalled + 1, what="the reader to be cut")
