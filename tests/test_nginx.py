"""nginx with deploy/nginx.conf before real workers: it hides nothing, delays nothing, and kills no EventSource."""

import signal

import psutil
import pytest
import requests

from tests.sse_client import assert_whole, connect, is_over, read_all, text_of
from tests.stack import nginx_executable, running_stack, wait_for


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    """A stack whose `url` is nginx's."""
    if nginx_executable() is None:
        pytest.skip("nginx is missing: apt-get install nginx-light")
    # With no heartbeat to write, nothing but the watcher on the socket can notice that a client left.
    with running_stack(tmp_path_factory.mktemp("nginx"), EVERSTREAM_HEARTBEAT_S="600") as stack:
        stack.start_nginx()
        yield stack
        stack.nginx.kill(signal.SIGTERM)


def test_events_pass_as_they_come(proxied, gate):
    with connect(f"{proxied.url}/stream?texts=a&texts=b&hold_before=2&gate={gate.path}") as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        gate.open()
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "ab"


def test_a_client_that_closes_is_noticed(proxied, gate):
    generation = proxied.submit(texts=["a"], hold_before=1, gate=gate.path)
    stream = connect(proxied.events_url(generation)).read(until=lambda seen: seen.events)
    assert proxied.streams() == 1
    stream.close()
    wait_for(lambda: proxied.streams() == 0)
    gate.open()


def test_a_killed_worker_looks_like_a_cut_and_not_like_an_end(proxied, gate):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(proxied.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        for pid in proxied.workers():
            psutil.Process(pid).kill()
        events = stream.read_to_the_cut().events
    gate.open()
    events += read_through(proxied, generation, stream.decoder.last_id)
    assert_whole(events)


def test_while_no_web_process_answers_an_eventsource_is_told_to_come_back(proxied, gate):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = proxied.events_url(generation)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        proxied.web.stop()
        events = stream.read_to_the_cut().events
    with connect(url, last_id=stream.decoder.last_id) as again:
        assert (again.status, again.headers["Content-Type"]) == (200, "text/event-stream")
        assert (again.read().events, again.decoder.retry_ms) == ([], 1000)
    assert requests.get(f"{proxied.url}/generations/{generation}", timeout=30).status_code == 502
    proxied.url, nginx_url = f"http://127.0.0.1:{proxied.port}", proxied.url
    proxied.start_web()
    proxied.url = nginx_url
    gate.open()
    events += read_through(proxied, generation, stream.decoder.last_id)
    assert_whole(events)


def test_the_applications_own_errors_pass(proxied):
    answer = requests.get(f"{proxied.url}/stream", timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "texts")
    answer = requests.post(f"{proxied.url}/generations", data="x" * (1 << 20 | 1), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    answer = requests.get(f"{proxied.url}/stream?texts={'x' * 9000}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (414, "uri_too_long")


def read_through(stack, generation, last_id):
    """As EventSource does: come back until the end was seen."""
    events = []
    while not is_over(events):
        events += read_all(stack.events_url(generation), last_id=events[-1].id if events else last_id)
    return events
