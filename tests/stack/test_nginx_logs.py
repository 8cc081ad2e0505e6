"""nginx's logs never contain a prompt or an id, and still have a line for each request that failed."""

import http.client
import re
import resource
import socket
import uuid
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

import psutil
import pytest
import requests

from harness.sse_client import connect
from harness.stack import wait_for

PROMPT = "a-prompt-that-must-not-be-logged"
REQUEST_ID = "a-secret-id"
REFERER = {"Referer": f"http://127.0.0.1/{PROMPT}"}


@pytest.fixture
def trouble(proxied, gate, tmp_path):
    """Causes one kind of failure after another, each behind its own nginx."""
    return Trouble(proxied, gate, tmp_path)


class Trouble:
    def __init__(self, stack, gate, folder):
        self.stack, self.gate, self.folder = stack, gate, folder
        self.request_id = f"{REQUEST_ID}-{uuid.uuid4()}"
        self.inputs = {"texts": [PROMPT, "b"], "hold_before": 2, "gate": gate.path, "request_id": self.request_id}
        self.generation = stack.submit(**self.inputs)

    def nginx(self, **changes):
        folder = self.folder / f"nginx{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return self.stack.another_nginx(folder, changes=changes)

    def addresses(self, nginx):
        """One URL per surface, each with a secret."""
        query = f"?{urlencode(self.inputs, doseq=True)}"
        return {
            "stream": f"{nginx.url}/stream{query}",
            "events": nginx.events_url(self.generation) + query,
            "generations": f"{nginx.url}/generations/{self.generation}{query}",
            "v1": f"{nginx.url}/v1/models{query}",
            "v2": f"{nginx.url}/v2/models/{PROMPT}{query}",
            "other": f"{nginx.url}/{PROMPT}",
        }

    def request_all(self, nginx):
        for url in self.addresses(nginx).values():
            for method in ("GET", "POST"):
                requests.request(method, url, headers=REFERER, data=PROMPT, stream=True, timeout=30).close()

    def lines(self, nginx):
        """Everything that was logged, after checking that it contains no secret."""
        written = nginx.nginx_logs()
        for secret in (PROMPT, REQUEST_ID, self.generation):
            assert secret not in written
        return written

    def expect(self, nginx, pattern, surfaces):
        """Exactly these surfaces get a line that matches. nginx writes a line after it has answered."""

        def found():
            lines = [line for line in self.lines(nginx).splitlines() if " status=" in line and re.search(pattern, line)]
            return {line.split()[2] for line in lines}

        wait_for(lambda: found() >= surfaces, what=f"{pattern} for {surfaces}")
        assert found() == surfaces


EVERYTHING = {"stream", "events", "generations", "v1", "v2", "other"}


def test_killed_workers_and_stopped_web_part(trouble):
    with trouble.nginx() as nginx:
        with connect(trouble.addresses(nginx)["events"], headers=REFERER) as stream:
            stream.read(until=lambda seen: len(seen.events) == 2)
            for pid in trouble.stack.workers():
                psutil.Process(pid).kill()
            stream.read_until_cut()
        trouble.stack.web.stop()
        try:
            trouble.request_all(nginx)
            trouble.expect(nginx, f"upstream=127.0.0.1:{trouble.stack.port}:502 ", EVERYTHING)
        finally:
            trouble.gate.open()
            trouble.stack.start_web()


def test_client_errors(trouble):
    with trouble.nginx() as nginx:
        trouble.request_all(nginx)
        for url in trouble.addresses(nginx).values():
            answer = requests.post(url, data=PROMPT * 140_000, headers=REFERER, timeout=30)
            assert answer.status_code == 413 or "event-stream" in answer.headers["Content-Type"]
            assert requests.get(f"{url}?{PROMPT * 600}", headers=REFERER, timeout=30).status_code == 414
            assert requests.get(url, headers=REFERER | {"X": PROMPT * 600}, timeout=30).status_code == 431
        for line in (
            f"GET /{PROMPT} HTTP/1.1\r\nHost: a/{PROMPT}\r\n\r\n",
            f"GET {PROMPT}\r\n\r\n",
            f"{PROMPT}\r\n\r\n",
            f"GET /{PROMPT} HTTP/3.0\r\nHost: a\r\n\r\n",
            f"POST /{PROMPT} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {PROMPT}\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", nginx.nginx_port), timeout=30) as connection:
                connection.sendall(line.encode())
                assert connection.recv(65536)
        trouble.expect(nginx, "status=", set())
        trouble.gate.open()


def test_timeouts(trouble):
    """A silent web process, a stalled body and a stalled reader each run into their limit."""
    limits = {
        "proxy_read_timeout 60s": "proxy_read_timeout 1s",
        "client_body_timeout 15s": "client_body_timeout 1s",
        "client_header_timeout 15s": "client_header_timeout 1s",
        "send_timeout 60s": "send_timeout 1s",
    }
    with trouble.nginx(**limits) as nginx:
        wait_for(lambda: is_cut(trouble.addresses(nginx)["events"]), what="a stream that nginx cuts")
        for line in (f"GET /{PROMPT} HTT", f"POST /{PROMPT} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", nginx.nginx_port), timeout=30) as connection:
                connection.sendall(line.encode())
                with pytest.raises(ConnectionResetError):
                    connection.recv(65536)
        large = trouble.stack.submit(texts=["x" * 100_000], repeat=200)
        with connect(f"{nginx.events_url(large)}?{PROMPT}") as stalled:
            port = stalled.local_port
            wait_for(lambda: port not in clients_of(nginx), what="the end of the stalled stream")
        for pid in trouble.stack.workers():
            psutil.Process(pid).suspend()
        try:
            requests.get(trouble.addresses(nginx)["generations"], headers=REFERER, timeout=30)
            requests.get(trouble.addresses(nginx)["stream"], headers=REFERER, timeout=30)
        finally:
            for pid in trouble.stack.workers():
                psutil.Process(pid).resume()
        trouble.expect(nginx, ":504 ", {"generations", "stream"})
        assert large not in nginx.nginx_logs()
        trouble.gate.open()


def is_cut(url):
    """Whether a stream is cut after it began; one that didn't begin in time is told to retry."""
    with connect(url, headers=REFERER) as stream:
        try:
            return not stream.read()
        except (http.client.IncompleteRead, ConnectionError):
            return bool(stream.events)


def clients_of(nginx):
    """The remote ports of nginx's connections."""
    connections = (each for worker in nginx.nginx.children() for each in worker.net_connections("tcp"))
    return {each.raddr.port for each in connections if each.raddr}


def test_limits(trouble):
    for changes in ({"connections 500;": "connections 1;"}, {"rate=100r/s": "rate=1r/m", "burst=1000": "burst=1"}):
        with trouble.nginx(**changes) as nginx, connect(nginx.events_url(trouble.generation)) as stream:
            stream.read(until=lambda seen: seen.events)
            trouble.request_all(nginx)
            trouble.request_all(nginx)
            trouble.expect(nginx, "REJECTED", EVERYTHING)
    trouble.gate.open()


def test_out_of_connections(trouble):
    """nginx logs this at a higher level than `error` and `crit`, and includes the request nevertheless."""
    with trouble.nginx(**{"worker_connections 16384": "worker_connections 8", "auto;": "1;"}) as nginx:
        query = f"texts={PROMPT}&texts=b&hold_before=2&gate={trouble.gate.path}"
        head = f"GET /stream?{query} HTTP/1.1\r\nHost: a\r\nReferer: {PROMPT}\r\n".encode()
        with several_connections(nginx, 4) as opened:
            # nginx would close a connection that has not sent a byte to make room.
            for connection in opened:
                connection.sendall(head)
            answers = []
            while opened and "retry: 1000\n" not in "".join(answers):
                opened[0].sendall(b"\r\n")
                answers.append(opened.pop(0).recv(65536).decode())
            trouble.expect(nginx, "stream status=200", {"stream"})
        with several_connections(nginx, 10):
            wait_for(lambda: "connections are not enough" in trouble.lines(nginx), what="a message for the operator")
    trouble.gate.open()


def test_out_of_memory(trouble):
    """The only failure of a request that nginx logs at its highest level, emerg."""
    # Run the worker as the user of the tests, who may then limit it.
    with trouble.nginx(**{"worker_processes auto;": "worker_processes 1; user root;"}) as nginx:
        (worker,) = nginx.nginx.children()
        limit = worker.memory_info().vms + (256 << 10)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
        head = f"POST /v1/models?{PROMPT} HTTP/1.1\r\nHost: a\r\nReferer: {PROMPT}\r\nContent-Length: 60000\r\n\r\n"
        with several_connections(nginx, 200) as opened:
            for connection in opened:
                connection.sendall(head.encode())
            wait_for(lambda: " status=500 " in trouble.lines(nginx), what="a request that fails for lack of memory")
    trouble.gate.open()


@contextmanager
def several_connections(nginx, count):
    with ExitStack() as stack:
        address = ("127.0.0.1", nginx.nginx_port)
        yield [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]


def test_body_that_cannot_be_stored(trouble):
    bodies = trouble.folder / "bodies"
    with trouble.nginx(
        **{"client_max_body_size 4m;": f"client_max_body_size 4m; client_body_temp_path {bodies};"}
    ) as nginx:
        bodies.rmdir()
        for surface, url in trouble.addresses(nginx).items():
            answer = requests.post(url, data=PROMPT * 10_000, headers=REFERER, timeout=30)
            is_stream = surface in ("stream", "events")
            assert answer.status_code == (200 if is_stream else 500)
            assert ("retry: 1000" if is_stream else "internal_error") in answer.text
        trouble.expect(nginx, "status=", EVERYTHING)
    trouble.gate.open()
