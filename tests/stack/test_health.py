"""The health port answers whatever clients do, there and at the main port."""

import json
import resource
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest
import requests

from everstream.web import health_listener
from everstream.web.limits import HEALTH_CONNECTIONS, SPARE_FILES
from harness.stack import free_port, wait_for

OTHER_CONNECTIONS = 1000
"""The connections that gunicorn.conf.py allows beyond the streams."""


@pytest.fixture
def started(own_stack):
    def start(**options):
        port = free_port()
        stack = own_stack(EVERSTREAM_HEALTH_PORT=str(port), **{"WEB_CONCURRENCY": "1", **options})
        stack.health_port, stack.health_url = port, f"http://127.0.0.1:{port}"
        stack.start_valkey()
        stack.start_web()
        # The queue that /metrics counts exists only after the first generation.
        stack.submit(texts=["a"])
        return stack

    return start


def check(stack, path="/healthz"):
    return requests.get(stack.health_url + path, timeout=30)


@contextmanager
def clients(port, count, sent=b""):
    """`count` connections that have sent `sent` and read nothing."""
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=30))
            opened[-1].sendall(sent)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def open_files(stack):
    (worker,) = stack.workers()
    return psutil.Process(worker).num_fds()


def test_health_port_serves_only_the_checks(started):
    stack = started()
    answer = check(stack)
    assert (answer.json()["status"], answer.headers["Connection"]) == ("ok", "close")
    assert check(stack, "/healthz?x=1").ok
    assert check(stack, "/readyz").json()["waiting_for"] == "engine"
    assert check(stack, f"/readyz?model={stack.settings.model_name}").json()["waiting_for"] == "engine"
    assert check(stack, "/readyz?model=other").json()["error"]["param"] == "model"
    assert "everstream_streams_total" in check(stack, "/metrics").text
    for path in ("/", "/stream?prompt=a", "/static/page.js", "/v1/models", "/healthz/x"):
        refused = check(stack, path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        assert refused.headers["Connection"] == "close"
    assert requests.post(f"{stack.health_url}/healthz", data="x" * 100_000, timeout=30).status_code == 405
    assert requests.head(f"{stack.health_url}/healthz", timeout=30).ok
    # The main port has them too.
    assert requests.get(f"{stack.url}/healthz", timeout=30).ok


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HTTP/1.1\r\nA: ", b"POST /generations HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"],
    ids=["nothing", "headers", "body"],
)
def test_slow_clients_hold_all_connections_of_the_main_port(started, sent):
    stack = started(EVERSTREAM_MAX_STREAMS="1")
    held = HEALTH_CONNECTIONS if b"POST" in sent else OTHER_CONNECTIONS
    with clients(stack.port, OTHER_CONNECTIONS + 100, sent):
        wait_for(lambda: open_files(stack) > held, what="the connections")
        for path in ("/healthz", "/metrics"):
            assert check(stack, path).ok
        assert check(stack, "/readyz").json()["waiting_for"] == "engine"


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HT", b"GET /metrics HTTP/1.1\r\n", b"POST /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n"],
)
def test_slow_clients_of_the_health_port(started, sent):
    stack = started()
    before = open_files(stack)
    with clients(stack.health_port, 4 * HEALTH_CONNECTIONS, sent) as slow:
        for _ in range(3):
            assert check(stack).ok
        assert open_files(stack) < before + 2 * HEALTH_CONNECTIONS
        # The oldest was closed.
        assert slow[0].recv(65536)[:12] in (b"", b"HTTP/1.1 405")
    assert "Traceback" not in stack.web.output


def test_out_of_open_files(started):
    stack = started()
    (worker,) = stack.workers()
    assert check(stack, "/metrics").ok
    files = open_files(stack)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (files + 20, files + 20))
    with clients(stack.port, 60):
        wait_for(lambda: "Too many open files" in stack.web.output, what="the worker to run out of files")
        for _ in range(5 * SPARE_FILES):
            assert check(stack).ok
        assert check(stack, "/metrics").ok


def test_valkey_does_not_answer(started):
    stack = started()
    assert check(stack, "/readyz").json()["waiting_for"] == "engine"
    stack.valkey.popen.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(2 * health_listener.MAX_WAITING) as pool:
        waiting = [pool.submit(check, stack, path) for path in ["/readyz", "/metrics"] * health_listener.MAX_WAITING]
        refused = wait_for(lambda: [each for each in waiting if each.done()])
        assert check(stack).ok
        assert refused[0].result().json()["error"]["code"] == "too_many_requests"
        stack.valkey.popen.send_signal(signal.SIGCONT)
        assert {each.result().status_code for each in waiting} <= {200, 503}
    assert check(stack, "/metrics").ok


def pids(stack):
    """The pids of all workers. Each worker answers some of the checks."""
    found = set()

    def all_have_answered():
        found.add(check(stack).json()["pid"])
        return len(found) == len(stack.workers())

    wait_for(all_have_answered, what="an answer from each worker")
    return found


def test_each_worker_answers_and_so_do_its_replacements(started):
    stack = started(WEB_CONCURRENCY="2")
    old = pids(stack)
    assert old == set(stack.workers())
    stack.web.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: len(stack.workers()) == 2 and not old & set(stack.workers()), what="new workers")
    new = pids(stack)
    assert not new & old
    killed = new.pop()
    psutil.Process(killed).kill()
    wait_for(lambda: len(stack.workers()) == 2 and killed not in stack.workers(), what="another worker")
    assert killed not in pids(stack)
    stack.web.popen.send_signal(signal.SIGTERM)
    assert stack.web.popen.wait(30) == 0
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", stack.health_port))
    assert "Traceback" not in stack.web.output


def test_gunicorn_master_killed(started):
    stack = started()
    workers = [psutil.Process(pid) for pid in stack.workers()]
    stack.web.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
    stack.start_web()
    assert check(stack).ok


def test_port_in_use_names_its_setting(own_stack):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        stack = own_stack(EVERSTREAM_HEALTH_PORT=str(port))
        web = stack._start("web", [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"])
        assert web.popen.wait(60) == 1
    assert f"can't listen on 127.0.0.1:{port}: Address already in use. Set EVERSTREAM_HEALTH_PORT to" in web.output


def test_health_port_is_off_by_default(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1")
    stack.start_web()
    own = {each.laddr.port for each in psutil.Process(stack.web.pid).net_connections("tcp")}
    assert own == {stack.port}
    assert json.loads(requests.get(f"{stack.url}/healthz", timeout=30).text)["status"] == "ok"
