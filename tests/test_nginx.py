"""nginx with deploy/nginx.conf before real workers: it hides nothing, delays nothing, and kills no EventSource."""

import http.client
import http.server
import json
import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from everstream.starting import MAX_BODY_BYTES
from tests.sse_client import assert_whole, connect, follow_to_the_end, text_of
from tests.stack import wait_for


def web(stack):
    """Past nginx."""
    return f"http://127.0.0.1:{stack.port}"


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
    try:
        with connect(url, last_id=stream.decoder.last_id) as again:
            assert (again.status, again.headers["Content-Type"]) == (200, "text/event-stream")
            assert (again.read().events, again.decoder.retry_ms) == ([], 1000)
        for path, more in ((f"/generations/{generation}", {}), ("/v1/models", {"type": "server_error"})):
            answer = requests.get(proxied.url + path, timeout=30)
            expected = {
                "code": "web_unavailable",
                "message": "no web process answers; try again",
                "param": None,
                **more,
            }
            assert (answer.status_code, answer.headers["Retry-After"], answer.json()) == (502, "1", {"error": expected})
    finally:
        proxied.start_web()
    gate.open()
    events += read_through(proxied, generation, stream.decoder.last_id)
    assert_whole(events)


def test_the_applications_own_errors_pass(proxied):
    answer = requests.get(f"{proxied.url}/stream", timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "texts")
    answer = requests.get(f"{proxied.url}/stream?texts={'x' * 9000}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (414, "uri_too_long")
    answer = requests.get(f"{proxied.url}/v1/models/none", timeout=30)
    assert (answer.status_code, answer.json()) == (
        404,
        requests.get(f"{web(proxied)}/v1/models/none", timeout=30).json(),
    )


def test_a_body_that_is_too_large_is_refused_as_the_application_would(proxied):
    body = b"x" * (MAX_BODY_BYTES + 1)
    own = requests.post(f"{web(proxied)}/generations", data=body, timeout=30)
    for sent in (body, iter([body])):
        answer = requests.post(f"{proxied.url}/generations", data=sent, timeout=30)
        assert (answer.status_code, answer.json()) == (413, own.json())
    assert requests.post(f"{proxied.url}/generations", data=body[:-1], timeout=30).status_code == 400


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        ("GET /?{long} HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        ("GET /stream?{long} HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n", 431, "headers_too_large"),
        ("GET /stream HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n", 431, "headers_too_large"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "bad_request"),
        ("GET stream HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad_request"),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        ("TRACE /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        ("GET /everstream-error HTTP/1.1\r\nHost: a\r\n\r\n", 404, "not_found"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "http_error"),
    ],
)
def test_nginxs_own_errors_have_the_applications_shape(proxied, sent, status, code):
    answer, body = send_raw(proxied.nginx_port, sent.format(long="x" * 17_000))
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == (code, None) and error["message"]
    assert error.get("type") == ("invalid_request_error" if "/v1/" in sent else None)


AMBIGUOUS = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "Content-Length: +0\r\n\r\n",
    "Content-Length: 0, 0\r\n\r\n",
    "X: a\r\n Content-Length: 0\r\n\r\n",
    "X: a\rContent-Length: 0\r\n\r\n",
    "X: a\0\r\n\r\n",
    "Host: b\r\n\r\n",
]
"""Heads that two servers may read in two ways, and so find different requests behind them."""


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_what_could_be_read_in_two_ways_is_refused(proxied, ambiguous):
    smuggled = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = send_all(proxied.nginx_port, f"POST /generations HTTP/1.1\r\nHost: a\r\n{ambiguous}{smuggled}")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert set(json.loads(body)) == {"error"}


def send_all(port, text):
    """All that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_encoded_in_a_path_stays_there(tmp_path, proxied):
    path = "/generations/%0d%0aX-Smuggled:%20a%0d%0a%0d%0aGET%20/metrics"
    with telling_headers() as upstream, proxied.another_nginx(tmp_path, upstream=upstream) as nginx:
        answer, body = send_raw(nginx.nginx_port, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
    told = json.loads(body)
    assert told["path"] == path
    assert "X-Smuggled" not in answer.headers and "X-Smuggled" not in told


def send_raw(port, text):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer, answer.read()


def test_what_is_for_operators_is_not_public(proxied):
    for path in ("/metrics", "/readyz"):
        assert requests.get(web(proxied) + path, timeout=30).ok
        for shape in ("{}", "{}?x", "/{}", "{}/", "/x/..{}", "/%2e{}", "{}#x", "http://x{}"):
            answer, body = send_raw(proxied.nginx_port, f"GET {shape.format(path)} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, json.loads(body)["error"]["code"]) == (404, "not_found"), shape
        encoded = "/%" + path[1:2].encode().hex() + path[2:]
        assert send_raw(proxied.nginx_port, f"GET {encoded} HTTP/1.1\r\nHost: a\r\n\r\n")[0].status == 404
    assert requests.get(f"{proxied.url}/healthz", timeout=30).ok


def test_an_address_that_has_too_many_streams_is_told_to_come_back(proxied, gate, tmp_path):
    with proxied.another_nginx(tmp_path, changes={"connections 500;": "connections 2;"}) as limited:
        events = limited.events_url(limited.submit(texts=["a"], hold_before=1, gate=gate.path))
        with connect(events) as first, connect(events) as second:
            for stream in (first, second):
                stream.read(until=lambda seen: seen.events)
            with connect(events) as third:
                assert (third.status, third.read().decoder.retry_ms, third.events) == (200, 5000, [])
            assert_refused(requests.get(limited.url, timeout=30))
            assert_refused(requests.get(f"{limited.url}/v1/models", timeout=30), type="rate_limit_error")
            gate.open()
            assert_whole(first.read().events)
        wait_for(lambda: requests.get(limited.url, timeout=30).ok, what="a free place")
        assert limited.nginx_logs().count("limits=REJECTED") >= 3


def test_an_address_that_asks_too_often_is_told_to_come_back(proxied, tmp_path):
    changes = {"rate=100r/s": "rate=1r/m", "burst=1000": "burst=1"}
    with proxied.another_nginx(tmp_path, changes=changes) as limited:
        assert [requests.get(limited.url, timeout=30).status_code for _ in range(3)] == [200, 200, 429]
        assert_refused(requests.post(f"{limited.url}/generations", json={"texts": ["a"]}, timeout=30))
        with connect(f"{limited.url}/stream?texts=a") as stream:
            assert (stream.status, stream.read().decoder.retry_ms, stream.events) == (200, 5000, [])


def assert_refused(answer, **more):
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    message = answer.json()["error"].pop("message")
    assert answer.json()["error"] == {"code": "too_many_requests", "message": message, "param": None, **more}


def test_what_a_client_says_of_its_address_does_not_pass(proxied, tmp_path):
    names = ("For", "Host", "Proto", "Protocol", "Ssl")
    lies = {f"X-Forwarded-{name}": "6.6.6.6" for name in names} | {"Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"}
    with telling_headers() as upstream, proxied.another_nginx(tmp_path, tls=True, upstream=upstream) as nginx:
        for url, scheme in ((nginx.url, "http"), (nginx.tls_url, "https")):
            told = requests.get(url, headers=lies, timeout=30, verify=tmp_path / "fullchain.pem").json()
            about_client = {name: text for name, text in told.items() if name in {"Host", *lies}}
            expected = {"Host": urlsplit(url).netloc, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": scheme}
            assert about_client == expected
        _, body = send_raw(nginx.nginx_port, "GET / HTTP/1.0\r\n\r\n")
        assert json.loads(body)["Host"] == "localhost"


class TellsHeaders(http.server.BaseHTTPRequestHandler):
    """Answers with the headers and the path that it was asked with."""

    def do_GET(self):
        body = json.dumps({**self.headers, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def telling_headers(address=("127.0.0.1", 0)):
    with http.server.ThreadingHTTPServer(address, TellsHeaders) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_scripts_are_compressed_and_streams_are_not(proxied):
    wants = {"Accept-Encoding": "gzip"}
    script = requests.get(f"{proxied.url}/static/main.js", headers=wants, timeout=30)
    assert (script.headers["Content-Encoding"], script.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert requests.get(proxied.url, headers=wants, timeout=30).headers["Content-Encoding"] == "gzip"
    again = requests.get(
        f"{proxied.url}/static/main.js", headers=wants | {"If-None-Match": script.headers["ETag"]}, timeout=30
    )
    assert again.status_code == 304
    with connect(f"{proxied.url}/stream?texts=a", headers=wants) as stream:
        assert stream.headers["Content-Encoding"] is None
        assert_whole(stream.read().events)


def read_through(stack, generation, last_id):
    return follow_to_the_end(stack.events_url(generation), last_id)[0]
