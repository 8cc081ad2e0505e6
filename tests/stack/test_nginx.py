"""nginx with deploy/nginx.conf in front of real workers hides nothing, delays nothing and kills no EventSource."""

import http.client
import http.server
import json
import signal
import socket
import threading
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from harness.sse_client import assert_whole, connect, follow_to_the_end, text_of
from harness.stack import wait_for


def web(stack):
    """The URL of the web part itself, bypassing nginx."""
    return f"http://127.0.0.1:{stack.port}"


def test_events_are_not_buffered(proxied, gate):
    with connect(f"{proxied.url}/stream?texts=a&texts=b&hold_before=2&gate={gate.path}") as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        gate.open()
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "ab"


def test_closed_client_is_noticed(proxied, gate):
    generation = proxied.submit(texts=["a"], hold_before=1, gate=gate.path)
    stream = connect(proxied.events_url(generation)).read(until=lambda seen: seen.events)
    assert proxied.streams() == 1
    stream.close()
    wait_for(lambda: proxied.streams() == 0)
    gate.open()


def test_killed_worker_is_a_cut_not_an_end(proxied, gate):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(proxied.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        for pid in proxied.workers():
            psutil.Process(pid).kill()
        events = stream.read_until_cut().events
    gate.open()
    events += read_rest(proxied, generation, stream.decoder.last_id)
    assert_whole(events)


def reload(nginx):
    """Returns nginx's old workers, once new ones run beside them."""
    old = nginx.nginx.children()
    nginx.nginx.kill(signal.SIGHUP)
    wait_for(lambda: set(nginx.nginx.children()) - set(old), what="new workers of nginx")
    return old


def test_streams_outlive_a_reload(proxied, gate):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(proxied.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        reload(proxied)
        # New requests go to new workers meanwhile.
        assert proxied.show(generation)["text"] == "a"
        gate.open()
        assert_whole(stream.read().events)


def test_streams_move_when_a_reload_does_not_wait_for_them(proxied, gate, tmp_path):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    changes = {"worker_shutdown_timeout 60s": "worker_shutdown_timeout 1s"}
    with proxied.another_nginx(tmp_path, changes=changes) as nginx:
        with connect(nginx.events_url(generation)) as stream:
            stream.read(until=lambda seen: len(seen.events) == 2)
            old = reload(nginx)
            events = stream.read_until_cut().events
            psutil.wait_procs(old, timeout=30)
        gate.open()
        assert_whole(events + follow_to_the_end(nginx.events_url(generation), stream.decoder.last_id)[0])


def test_eventsource_is_told_to_retry_while_no_web_process_answers(proxied, gate):
    generation = proxied.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = proxied.events_url(generation)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        proxied.web.stop()
        events = stream.read_until_cut().events
    try:
        for each in (url, f"{proxied.url}/events?generation={generation}"):
            with connect(each, last_id=stream.decoder.last_id) as again:
                assert (again.status, again.headers["Content-Type"]) == (200, "text/event-stream")
                assert (again.read().events, again.decoder.retry_ms) == ([], 1000)
        for path in ("/topics/a", "/topics?topic=a"):
            with connect(proxied.url + path) as again:
                assert (again.status, again.headers["Content-Type"]) == (200, "text/event-stream")
                assert (again.read().events, again.decoder.retry_ms) == ([], 1000)
        requested = [
            ("GET", f"/generations/{generation}", {}),
            ("GET", "/v1/models", {"type": "server_error"}),
            ("GET", "/topics", {}),
            ("POST", "/topics/a", {}),
        ]
        for method, path, more in requested:
            answer = requests.request(method, proxied.url + path, timeout=30)
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
    events += read_rest(proxied, generation, stream.decoder.last_id)
    assert_whole(events)


def test_application_errors_pass_through(proxied):
    answer = requests.get(f"{proxied.url}/stream", timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "texts")
    answer = requests.get(f"{proxied.url}/stream?texts={'x' * 9000}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (414, "uri_too_long")
    answer = requests.get(f"{proxied.url}/v1/models/none", timeout=30)
    assert (answer.status_code, answer.json()) == (
        404,
        requests.get(f"{web(proxied)}/v1/models/none", timeout=30).json(),
    )


@pytest.mark.parametrize("path", ["/generations", "/v2/models/{model}/infer"])
def test_oversized_body_is_refused_as_by_the_application(proxied, path):
    body = b"x" * (proxied.settings.max_body_bytes + 1)
    path = path.format(model=proxied.settings.model_name)
    own = requests.post(f"{web(proxied)}{path}", data=body, timeout=30)
    for sent in (body, iter([body])):
        answer = requests.post(f"{proxied.url}{path}", data=sent, timeout=30)
        assert (answer.status_code, answer.json()) == (413, own.json())
    assert requests.post(f"{proxied.url}{path}", data=body[:-1], timeout=30).status_code == 400


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
def test_nginx_errors_have_the_applications_shape(proxied, sent, status, code):
    answer, body = send_raw(proxied.nginx_port, sent.format(long="x" * 17_000))
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == (code, None) and error["message"]
    assert error.get("type") == ("invalid_request_error" if "/v1/" in sent else None)


@pytest.mark.parametrize(
    ("sent", "status", "kind", "code"),
    [
        ("GET {path} HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n", 431, "invalid_request_error", "headers_too_large"),
        (
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n",
            413,
            "request_too_large",
            "body_too_large",
        ),
    ],
)
def test_nginx_errors_have_anthropics_shape(proxied, sent, status, kind, code):
    answer, body = send_raw(proxied.nginx_port, sent.format(path="/v1/messages?beta=true", long="x" * 17_000))
    error = json.loads(body)["error"]
    assert (answer.status, json.loads(body)["type"]) == (status, "error")
    assert (error["type"], error["details"]["error_code"]) == (kind, code) and error["message"]


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
"""Heads that two servers may parse differently, and so disagree on where the next request begins."""


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_ambiguous_requests_are_refused(proxied, ambiguous):
    smuggled = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = send_all(proxied.nginx_port, f"POST /generations HTTP/1.1\r\nHost: a\r\n{ambiguous}{smuggled}")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert set(json.loads(body)) == {"error"}


def send_all(port, text):
    """Everything received until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_encoded_characters_stay_in_the_path(tmp_path, proxied):
    path = "/generations/%0d%0aX-Smuggled:%20a%0d%0a%0d%0aGET%20/metrics"
    with header_echo_server() as upstream, proxied.another_nginx(tmp_path, upstream=upstream) as nginx:
        answer, body = send_raw(nginx.nginx_port, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
    received = json.loads(body)
    assert received["path"] == path
    assert "X-Smuggled" not in answer.headers and "X-Smuggled" not in received


def send_raw(port, text):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(text.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer, answer.read()


def test_operator_routes_are_not_public(proxied):
    for path in ("/metrics", "/readyz", "/dashboard"):
        assert requests.get(web(proxied) + path, timeout=30).ok
        for shape in ("{}", "{}?x", "/{}", "{}/", "/x/..{}", "/%2e{}", "{}#x", "http://x{}"):
            answer, body = send_raw(proxied.nginx_port, f"GET {shape.format(path)} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.status, json.loads(body)["error"]["code"]) == (404, "not_found"), shape
        encoded = "/%" + path[1:2].encode().hex() + path[2:]
        assert send_raw(proxied.nginx_port, f"GET {encoded} HTTP/1.1\r\nHost: a\r\n\r\n")[0].status == 404
    for path in ("/dashboard/events", "/dashboard//events", "/dashboard/x"):
        assert send_raw(proxied.nginx_port, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")[0].status == 404
    assert requests.get(f"{proxied.url}/static/dashboard/main.js", timeout=30).ok
    assert requests.get(f"{proxied.url}/healthz", timeout=30).ok


def test_address_with_too_many_streams_is_told_to_retry(proxied, gate, tmp_path):
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
        wait_for(lambda: requests.get(limited.url, timeout=30).ok, what="a free slot")
        assert limited.nginx_logs().count("limits=REJECTED") >= 3


def test_streams_of_several_generations_have_a_limit_of_their_own(proxied, gate, tmp_path):
    with proxied.another_nginx(tmp_path, changes={"joining 60;": "joining 1;"}) as limited:
        generation = limited.submit(texts=["a"], hold_before=1, gate=gate.path)
        several = f"{limited.url}/events?generation={generation}"
        with connect(several) as first:
            first.read(until=lambda seen: seen.events)
            with connect(several) as second:
                assert (second.status, second.read().decoder.retry_ms, second.events) == (200, 5000, [])
            with connect(limited.events_url(generation)) as other:
                gate.open()
                assert_whole(other.read().events)


def test_address_over_the_rate_limit_is_told_to_retry(proxied, tmp_path):
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


def test_forwarding_headers_of_clients_are_dropped(proxied, tmp_path):
    names = ("For", "Host", "Proto", "Protocol", "Ssl")
    forged = {f"X-Forwarded-{name}": "6.6.6.6" for name in names} | {"Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"}
    with header_echo_server() as upstream, proxied.another_nginx(tmp_path, tls=True, upstream=upstream) as nginx:
        for url, scheme in ((nginx.url, "http"), (nginx.tls_url, "https")):
            received = requests.get(url, headers=forged, timeout=30, verify=tmp_path / "fullchain.pem").json()
            about_client = {name: text for name, text in received.items() if name in {"Host", *forged}}
            expected = {"Host": urlsplit(url).netloc, "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": scheme}
            assert about_client == expected
        _, body = send_raw(nginx.nginx_port, "GET / HTTP/1.0\r\n\r\n")
        assert json.loads(body)["Host"] == "localhost"


class HeaderEcho(http.server.BaseHTTPRequestHandler):
    """Echoes the request's headers and path as JSON."""

    def do_GET(self):
        body = json.dumps({**self.headers, "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def header_echo_server(address=("127.0.0.1", 0)):
    with http.server.ThreadingHTTPServer(address, HeaderEcho) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_pages_are_compressed_and_streams_are_not(proxied):
    accepts = {"Accept-Encoding": "gzip"}
    script = requests.get(f"{proxied.url}/static/page/main.js", headers=accepts, timeout=30)
    assert (script.headers["Content-Encoding"], script.headers["Vary"]) == ("gzip", "Accept-Encoding")
    for path in ("", "/docs", "/openapi.json"):
        page = requests.get(f"{proxied.url}{path}", headers=accepts, timeout=30)
        assert page.headers["Content-Encoding"] == "gzip"
    again = requests.get(
        f"{proxied.url}/static/page/main.js", headers=accepts | {"If-None-Match": script.headers["ETag"]}, timeout=30
    )
    assert again.status_code == 304
    with connect(f"{proxied.url}/stream?texts=a", headers=accepts) as stream:
        assert stream.headers["Content-Encoding"] is None
        assert_whole(stream.read().events)


def read_rest(stack, generation, last_id):
    return follow_to_the_end(stack.events_url(generation), last_id)[0]
