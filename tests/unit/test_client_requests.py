"""What the Python client sends, what responses mean to it, and how long it waits."""

import json
import re
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.client import Client
from everstream.client.backoff import FIRST_S, LONGEST_S, Backoff
from everstream.client.errors import GaveUp, RequestRefused, Unavailable
from everstream.client.replies import MAX_RETRY_AFTER_S, Reply, shown, started, stopped
from everstream.client.requests import Addresses, start_body
from everstream.client.transport import unavailable

GENERATION = "0123456789abcdef" * 2
LOST = Unavailable("connection_lost", "lost")


@pytest.mark.parametrize("base", ["https://host/ai", "https://host/ai/", "http://[::1]:8000", "http://u:p@host/"])
def test_addresses(base):
    addresses = Addresses(base)
    root = base.rstrip("/")
    assert addresses.generations == f"{root}/generations"
    assert addresses.events(GENERATION) == f"{root}/generations/{GENERATION}/events?ping=true"


@pytest.mark.parametrize("base", ["", "host", "ftp://host", "https://", "https://host/?a=b", "https://host/#a"])
def test_wrong_base_urls(base):
    with pytest.raises(ValueError, match="base_url"):
        Client(base)


def test_body():
    body = start_body({"prompt": "p", "messages": None}, None, {"model": "m", "flush_ms": None}, {"max_tokens": 3})
    fields = json.loads(body)
    assert re.fullmatch("[0-9a-f]{32}", fields.pop("request_id"))
    assert fields == {"prompt": "p", "model": "m", "max_tokens": 3}
    given_id = json.loads(start_body({}, {"a": None}, {"request_id": "r" * 16}, {}))
    assert given_id == {"a": None, "request_id": "r" * 16}


def test_each_body_has_a_request_id_of_its_own():
    assert len({start_body({"prompt": "p"}, None, {}, {}) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("main", "inputs", "others", "message"),
    [
        ({"prompt": "p", "messages": []}, None, {}, "only one"),
        ({"prompt": "p"}, {}, {}, "only one"),
        ({}, {"a": 1}, {"a": 1}, "a is given twice"),
    ],
)
def test_contradictions(main, inputs, others, message):
    with pytest.raises(TypeError, match=message):
        start_body(main, inputs, {}, others)


def test_values_that_are_no_json():
    with pytest.raises(ValueError, match="JSON"):
        start_body({}, {"a": float("nan")}, {}, {})


ERROR = b'{"error":{"code":"queue_full","message":"m","param":"p"}}'
STARTED = json.dumps({"id": GENERATION}).encode()


def test_expected_responses():
    assert started(Reply(201, {}, STARTED)) == GENERATION
    assert started(Reply(200, {}, STARTED)) == GENERATION
    assert stopped(Reply(202, {}, b'{"state":"stopping"}')) == "stopping"
    gone = b'{"error":{"code":"generation_expired","message":"m"}}'
    assert stopped(Reply(404, {}, gone)) == "expired"
    assert shown(Reply(200, {}, b'{"state":"done"}')) == {"state": "done"}


@pytest.mark.parametrize("read", [started, stopped, shown])
@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, ERROR, RequestRefused, "queue_full"),
        (404, b"", RequestRefused, "http_404"),
        (409, b'{"error":"text"}', RequestRefused, "http_409"),
        (401, b"[" * 100_000, RequestRefused, "http_401"),
        (307, b"", RequestRefused, "redirected"),
        (408, b"", Unavailable, "http_408"),
        (425, b"", Unavailable, "http_425"),
        (429, ERROR, Unavailable, "queue_full"),
        (500, b"", Unavailable, "http_500"),
        (503, b'{"error":{"code":7}}', Unavailable, "http_503"),
        (201, b"<html>", Unavailable, "unexpected_response"),
        (200, b'{"id":"../x","state":1}', Unavailable, "unexpected_response"),
        (202, b"[]", Unavailable, "unexpected_response"),
        (204, b"", Unavailable, "unexpected_response"),
    ],
)
def test_other_responses(read, status, body, kind, code):
    with pytest.raises((RequestRefused, Unavailable)) as raised:
        read(Reply(status, {}, body))
    assert (type(raised.value), raised.value.code, raised.value.status) == (kind, code, status)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("Thu, 01 Jan 1970 00:01:10 GMT", 60),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("-1", 0),
        ("soon", 0),
        ("٣", 0),
        ("", 0),
    ],
)
def test_retry_after(header, seconds):
    with pytest.raises(Unavailable) as raised:
        started(Reply(503, {"retry-after": header}, b"", now=10.0))
    assert raised.value.retry_after_s == seconds
    assert Backoff(None).failed(raised.value, 0.0) >= seconds


@given(st.floats(0, 1), st.integers(0, 60))
def test_delays(jitter, failures):
    """Doubling, between half and all."""
    backoff = Backoff(None, lambda: jitter)
    for _ in range(failures):
        backoff.failed(LOST, 0.0)
    longest = min(LONGEST_S, FIRST_S * 2**failures)
    assert longest / 2 <= backoff.failed(LOST, 0.0) <= longest


def test_retry_of_the_stream_is_the_least_delay():
    backoff = Backoff(None, lambda: 0.0)
    backoff.retry_s = 5.0
    assert [backoff.failed(LOST, 0.0) for _ in range(7)] == [5.0, 5.0, 5.0, 5.0, 5.0, 8.0, 15.0]
    backoff.progressed()
    assert backoff.failed(LOST, 0.0) == 5.0


def test_giving_up_names_the_cause():
    with pytest.raises(GaveUp, match="lost") as raised:
        Backoff(0).failed(LOST, 0.0)
    assert (raised.value.code, raised.value.__cause__) == ("connection_lost", LOST)


def test_errors_that_waiting_does_not_heal():
    for error in (httpx.UnsupportedProtocol("m"), httpx.LocalProtocolError("m")):
        with pytest.raises(type(error)):
            unavailable(error)
    assert unavailable(httpx.ReadTimeout("m")).code == "timeout"
    assert unavailable(httpx.ConnectError("m")).code == "connection_lost"
    assert unavailable(LOST) is LOST


def test_import_is_light():
    heavy = ["flask", "gevent", "gunicorn", "valkey", "msgspec", "werkzeug", "torch", "vllm"]
    script = f"import sys, everstream.client; print([name for name in {heavy} if name in sys.modules])"
    assert run(script).stdout.strip() == "[]"


def test_without_httpx():
    done = run("import sys; sys.modules['httpx'] = None; import everstream.client", check=False)
    assert "pip install 'everstream[client]'" in done.stderr.splitlines()[-1]


def run(script, *, check=True):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=check)
