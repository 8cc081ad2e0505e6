"""Bad input over HTTP: a clear error names the field, nothing is started and nothing is left behind."""

import http.client
import json
import re

import pytest
import requests
import valkey

from harness.stack import wait_for, web_alone

GENERATION = "0123456789abcdef" * 2


@pytest.fixture
def nothing_starts(fast):
    """No key is left behind in the log."""
    client = valkey.Valkey.from_url(fast.settings.log_url)
    pattern = f"{{{fast.settings.namespace}}}:gen:*"
    before = set(client.scan_iter(pattern))
    yield
    assert set(client.scan_iter(pattern)) <= before
    client.close()


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "param"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/stream", "texts"),
        ("/stream?texts=a&repeat=x", "repeat"),
        ("/stream?texts=a&repeat=0", "repeat"),
        ("/stream?texts=a&other=1", "other"),
        ("/stream?texts=a&flush_ms=soon", "flush_ms"),
        ("/stream?texts=a&flush_ms=-1", "flush_ms"),
        ("/stream?texts=a&flush_ms=1001", "flush_ms"),
        ("/stream?texts=a&request_id=short", "request_id"),
        ("/stream?texts=a&request_id=" + "x" * 65, "request_id"),
        ("/stream?texts=a&request_id=0123456789abcdef%0a", "request_id"),
        ("/stream?texts=a&request_id=" + GENERATION + "&request_id=" + GENERATION, "request_id"),
        ("/stream?last_event_id=7", "last_event_id"),
        (f"/generations/{GENERATION}/events?last_event_id={'f' * 32}.1", "Last-Event-ID"),
    ],
)
def test_wrong_queries(fast, nothing_starts, path, param):
    error = error_of(requests.get(fast.url + path, timeout=30), 400)
    assert (error["code"], error["param"]) == ("invalid_request", param)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ("", "body"),
        ("{", "body"),
        ("[]", "body"),
        ('"texts"', "body"),
        ("{}", "texts"),
        ('{"texts": [7]}', "texts"),
        ('{"texts": ["a"], "repeat": "2"}', "repeat"),
        ('{"texts": ["a"], "request_id": 7}', "request_id"),
        ('{"texts": ["a"], "request_id": ["0123456789abcdef"]}', "request_id"),
    ],
)
def test_wrong_bodies(fast, nothing_starts, body, param):
    error = error_of(requests.post(f"{fast.url}/generations", data=body, timeout=30), 400)
    assert (error["code"], error["param"]) == ("invalid_request", param)


def test_body_over_4_mib(fast, nothing_starts):
    body = json.dumps({"texts": ["x" * (4 << 20)]})
    error = error_of(requests.post(f"{fast.url}/generations", data=body, timeout=30), 413)
    assert (error["code"], error["message"]) == ("body_too_large", "the body is over 4194304 bytes")


def test_chunked_body_over_4_mib(fast, nothing_starts):
    chunks = (b"x" * 65536 for _ in range(65))
    assert error_of(requests.post(f"{fast.url}/generations", data=chunks, timeout=30), 413)["code"] == "body_too_large"


def test_body_just_below_4_mib_is_parsed(fast, nothing_starts):
    body = json.dumps({"texts": ["x" * 4_000_000]})
    error = error_of(requests.post(f"{fast.url}/generations", data=body, timeout=30), 400)
    assert error["message"] == "texts has 4000000 characters; at most 200000 are allowed"


def test_body_limit_is_a_setting(tmp_path):
    with web_alone(tmp_path, EVERSTREAM_MAX_BODY_BYTES="2000") as stack:
        for data in ({"data": b"x" * 2001}, {"data": iter([b"x" * 2001])}):
            error = error_of(requests.post(f"{stack.url}/generations", **data, timeout=30), 413)
            assert error["message"] == "the body is over 2000 bytes"
        assert requests.post(f"{stack.url}/generations", json={"texts": ["x" * 1000]}, timeout=30).status_code == 201
        answer = requests.get(f"{stack.url}/stream?texts={'x' * 9000}", timeout=30)
        assert "a body of up to 2000 bytes" in error_of(answer, 414)["message"]


@pytest.mark.parametrize(
    "last_id", ["7", "../../x", f"{GENERATION}.-1", f"{GENERATION}.99999999999", "\xe9", "x" * 5000]
)
def test_malformed_last_event_id(fast, nothing_starts, last_id):
    headers = {"Last-Event-ID": last_id.encode("latin-1")}
    error = error_of(requests.get(f"{fast.url}/stream?texts=a", headers=headers, timeout=30), 400)
    assert (error["code"], error["param"]) == ("invalid_request", "Last-Event-ID")


def test_last_event_id_from_the_future(fast):
    generation = fast.submit(texts=["a"])
    wait_for(lambda: fast.show(generation)["state"] == "done")
    headers = {"Last-Event-ID": f"{generation}.3"}
    error = error_of(requests.get(f"{fast.url}/stream", headers=headers, timeout=30), 400)
    assert error["param"] == "Last-Event-ID"
    assert error["message"] == "Last-Event-ID names entry 3, but the log of this generation ends at entry 2"


@pytest.mark.parametrize(
    ("address", "status", "code"),
    [
        (("GET", "/nowhere"), 404, "not_found"),
        (("POST", "/stream"), 405, "method_not_allowed"),
        (("DELETE", f"/generations/{GENERATION}"), 404, "generation_expired"),
        (("GET", f"/generations/{GENERATION}"), 404, "generation_expired"),
        (("GET", "/generations/nonsense"), 404, "generation_expired"),
        (("GET", "/generations/nonsense/events"), 404, "generation_expired"),
        (("GET", "/static/../app.py"), 404, "not_found"),
    ],
)
def test_wrong_addresses(fast, nothing_starts, address, status, code):
    # Not through requests, which would normalize the path.
    connection = http.client.HTTPConnection("127.0.0.1", fast.port, timeout=30)
    connection.request(*address)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (status, code)
    connection.close()


def test_wrong_method_gets_an_allow_header(fast):
    answer = requests.post(f"{fast.url}/stream", timeout=30)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET /stream?texts=" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", 400, "bad_request"),
    ],
)
def test_gunicorn_errors_are_json(fast, request_bytes, status, code):
    connection = http.client.HTTPConnection("127.0.0.1", fast.port, timeout=30)
    connection.connect()
    connection.sock.sendall(request_bytes)
    answer = http.client.HTTPResponse(connection.sock)
    answer.begin()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (status, code)
    connection.close()


def test_inputs_over_the_models_context(fast, nothing_starts):
    error = error_of(requests.post(f"{fast.url}/generations", json={"texts": ["x" * 150_000] * 3}, timeout=30), 400)
    assert (error["code"], error["param"]) == ("context_length_exceeded", "texts")


def test_request_before_any_engine_is_queued(own_stack):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    answer = requests.get(f"{stack.url}/readyz", timeout=30)
    assert (answer.status_code, answer.json()["waiting_for"]) == (503, "engine")
    generation = stack.submit(texts=["a"])
    assert stack.show(generation)["state"] == "queued"
    stack.start_engine()
    wait_for(lambda: stack.show(generation)["state"] == "done")


def test_full_queue(own_stack):
    stack = own_stack(EVERSTREAM_MAX_QUEUED="1")
    stack.start_valkey()
    stack.start_web()
    stack.submit(texts=["a"])
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["b"]}, timeout=30)
    assert error_of(answer, 503)["code"] == "queue_full"
    assert answer.headers["Retry-After"] == "5"
    # Any status but 200 would close an EventSource permanently.
    answer = requests.get(f"{stack.url}/stream?texts=b", headers={"Accept": "text/event-stream"}, timeout=30)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    retry_ms, data = re.fullmatch("retry: ([0-9]+)\n\nevent: busy\ndata: (.*)\n\n", answer.text).groups()
    assert 5000 <= int(retry_ms) <= 10_000
    assert json.loads(data)["retry_ms"] == int(retry_ms)


def test_no_valkey(own_stack):
    stack = own_stack()
    stack.start_web()
    answer = requests.post(f"{stack.url}/generations", json={"texts": ["b"]}, timeout=30)
    assert error_of(answer, 503)["code"] == "log_unavailable"
    assert stack.readiness()["waiting_for"] == "valkey"
    assert requests.get(f"{stack.url}/healthz", timeout=30).ok


def test_redirect_of_a_doubled_slash_is_relative(fast):
    """A proxy may speak HTTPS where the web process sees HTTP, and a client repeats its body where it is sent to."""
    answer = requests.post(f"{fast.url}/v1//chat/completions", json={}, allow_redirects=False, timeout=30)
    assert (answer.status_code, answer.headers["Location"]) == (308, "/v1/chat/completions")
