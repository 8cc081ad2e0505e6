"""Web workers keep no state that matters: a stream continues on another worker."""

import signal

import psutil
import pytest
import requests

from harness.sse_client import assert_whole, connect, is_over, read_all, text_of
from harness.stack import running_stack, wait_for


@pytest.fixture(scope="module", params=[1, 2, 4])
def web(request, tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("web"), WEB_CONCURRENCY=str(request.param)) as stack:
        stack.worker_count = request.param
        yield stack


def connect_elsewhere(stack, url, last_id, pid):
    """A connection that another worker serves. The kernel chooses the worker, so try until it chooses another."""
    for _ in range(200):
        stream = connect(url, last_id=last_id).read(until=lambda seen: seen.bytes_read)
        if stack.worker_of(stream.local_port) != pid:
            return stream
        stream.close()
    raise AssertionError("no other worker took the connection")


def test_resume_on_another_worker(web, gate):
    generation = web.submit(texts=["a", "b", "c", "d"], hold_before=3, gate=gate.path)
    url = web.events_url(generation)
    with connect(url) as first:
        first.read(until=lambda seen: len(seen.events) == 3)
        pid = web.worker_of(first.local_port)
        if web.worker_count == 1:
            second = connect(url, last_id=first.decoder.last_id)
        else:
            second = connect_elsewhere(web, url, first.decoder.last_id, pid)
    gate.open()
    with second:
        events = first.events + second.read().events
    assert_whole(events)
    assert text_of(events) == "abcd"


def test_worker_killed_mid_stream(web, gate):
    generation = web.submit(texts=["a", "b", "c"], hold_before=3, gate=gate.path)
    url = web.events_url(generation)
    with connect(url) as first:
        first.read(until=lambda seen: len(seen.events) == 3)
        psutil.Process(web.worker_of(first.local_port)).kill()
        # The chunked response was cut: the client notices, and knows which events it has.
        events = first.read_until_cut().events
    assert not is_over(events)
    gate.open()
    wait_for(lambda: len(web.workers()) == web.worker_count, what="a new worker")
    events += read_all(url, last_id=first.decoder.last_id)
    assert_whole(events)
    assert text_of(events) == "abc"


def test_streams_end_at_once_when_gunicorn_stops(web, gate):
    # Wait for all workers: one that was just forked does not handle signals yet, and would miss the signal below.
    assert web.streams() == 0
    generation = web.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = web.events_url(generation)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        web.web.popen.send_signal(signal.SIGTERM)
        events = stream.read().events
    assert not is_over(events)
    web.web.popen.wait(30)
    web.start_web()
    gate.open()
    events += read_all(url, last_id=stream.decoder.last_id)
    assert_whole(events)


def test_worker_is_light(web):
    """It loads neither torch nor vllm, and stays below 80 MB."""
    web.assert_idle()
    for pid in web.workers():
        process = psutil.Process(pid)
        loaded = [mapped.path for mapped in process.memory_maps()]
        assert not [path for path in loaded if "/torch/" in path or "/vllm/" in path]
        assert process.memory_info().rss < 80e6


def test_idle_connection_does_not_delay_a_stop(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1")
    stack.start_web()
    with requests.Session() as idle:
        assert idle.get(f"{stack.url}/healthz", timeout=30).ok
        stack.web.popen.send_signal(signal.SIGTERM)
        assert stack.web.popen.wait(30) == 0
    assert "graceful timeout" not in stack.web.output
    assert "Traceback" not in stack.web.output
