"""Thousands of requests that no client would send, on every route: each gets an answer of its API's form, soon, and the
processes stay as they were. And the parsers of what clients send back."""

import http.client
import json
import random
import re
import string
from collections import Counter
from urllib.parse import quote

import psutil
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everstream.apis import APIS
from everstream.errors import InvalidInput
from everstream.log import api_keys
from everstream.settings import load_settings
from everstream.web import sse
from everstream.web.access import signed
from everstream.web.access.credentials import COOKIE
from everstream.web.access.signed import Session, Ticket
from everstream.web.factory import create_app
from harness.callers import Caller, keys
from harness.stack import MODELS, running_stack, wait_for

CASES = 5000
WARM_UP = 500
TIMEOUT_S = 30
MAX_GROWTH_BYTES = 24 << 20
"""Of a worker's memory, by the later cases. One that kept 6 KB of each request would exceed it."""
SECRET = b"0" * 32
ENDLESS = ("/dashboard/events",)
KILLS = ("/demo/kill",)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    options = {"EVERSTREAM_ACCESS": "keys", "WEB_CONCURRENCY": "1", "EVERSTREAM_LOG_LEVEL": "warning"}
    with running_stack(tmp_path_factory.mktemp("fuzzed"), app_dir=MODELS / "chat", **options) as stack:
        yield stack


@pytest.fixture(scope="module")
def alice(fuzzed):
    return Caller(fuzzed, keys(fuzzed, "add", "alice", "--scopes", "infer,admin,publish"))


def routes():
    app = create_app(APIS, load_settings({}))
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule not in (*ENDLESS, *KILLS)]
    return sorted((method, rule.rule) for rule in rules for method in rule.methods)


FIELDS = (
    *("prompt", "messages", "input", "stream", "model", "max_tokens", "n", "inputs", "parameters", "text_input"),
    *("request_id", "flush_ms", "tools", "access", "generation", "key", "tokens", "temperature", "expires_in_s"),
    *("data", "event", "id", "ttl_s", "base64", "topic", "content_type", "history", "latest"),
)
HEADERS = (
    *("Last-Event-ID", "Idempotency-Key", "Content-Type", "Accept", "Cookie", "X-Request-Id", "Origin", "Range"),
    *("Sec-Fetch-Site", "Content-Encoding", "Inference-Header-Content-Length", "X-Forwarded-For"),
    *("Producer-Id", "Producer-Epoch", "Producer-Seq", "Stream-Closed", "Stream-Seq", "Stream-TTL", "If-None-Match"),
    *("Stream-Expires-At", "Stream-Forked-From", "Stream-Fork-Offset", "Stream-Fork-Sub-Offset"),
)
QUERIES = (
    *("prompt", "last_event_id", "ticket", "generation", "format", "ping", "compact", "after", "limit", "model"),
    *("stream", "starting_after", "request_id", "messages"),
    *("topic", "prefix", "last", "since", "offset", "live", "cursor", "event", "id", "ttl_s"),
)
TEXTS = (
    *("", "x", "true", "null", "-1", "0", "1e999", "../..", "\u202e\u0000", "\U0001f600" * 20, "%0d%0aX: y", "é" * 99),
    *("0" * 32, f"{'0' * 32}.1", f"{'0' * 32}.1-2.{'f' * 32}", f"resp_{'0' * 32}", "application/json", "x" * 3000),
    *("news", "news/*", "**", "/v1/stream/news", "-1", "now", "0" * 16, "9" * 16, "2026-01-31T12:00:00Z", "text/plain"),
    *("text/event-stream", "gzip", "null", "https://evil.example", "same-origin", "bytes=0-", f"{COOKIE}=a.b"),
)
RAW = (b"", b"[" * 3000, b'{"a":' * 3000, b'{"prompt":"' + b"x" * 100_000, b"\xff\xfe{}", b'{"a":1,"a":2}', b"\0" * 99)


class Fuzzer:
    """Draws requests, always the same ones."""

    def __init__(self, routes):
        self._random, self._routes = random.Random(7), routes

    def request(self):
        """A method, a target, headers, a body, and whether it comes with a key."""
        method, rule = self._random.choice(self._routes)
        path = "/".join(quote(self._text(), safe="") if part.startswith("<") else part for part in rule.split("/"))
        query = "&".join(f"{name}={quote(self._text(), safe='')}" for name in self._some(QUERIES))
        headers = {name: self._header() for name in self._some(HEADERS)}
        return method, f"{path}?{query}" if query else path, headers, self._body(), self._random.random() < 0.8

    def _some(self, names):
        return self._random.sample(names, self._random.choice((0, 0, 1, 1, 2, 4)))

    def _text(self):
        if self._random.random() < 0.7:
            return self._random.choice(TEXTS)
        return "".join(chr(self._random.randrange(1, 0x2FFF)) for _ in range(self._random.randrange(40)))

    def _header(self):
        """Latin-1, without what would end it: that is gunicorn's to refuse."""
        return re.sub("[^\t -~\xa1-\xff]", "?", self._text())

    def _body(self):
        kind = self._random.random()
        if kind < 0.2:
            return self._random.choice(RAW)
        value = {name: self._json() for name in self._some(FIELDS)} if kind < 0.8 else self._json()
        return json.dumps(value).encode()

    def _json(self, depth=0):
        makers = [
            lambda: self._random.choice((None, True, False, 0, -1, 10**20, 1.5, 1e308)),
            self._text,
            lambda: [self._json(depth + 1) for _ in range(self._random.randrange(4))],
            lambda: {self._text(): self._json(depth + 1) for _ in range(self._random.randrange(4))},
        ]
        return self._random.choice(makers[: 2 if depth > 2 else 4])()


def test_every_answer_has_its_form(fuzzed, alice):
    worker, fuzzer = psutil.Process(fuzzed.workers()[0]), Fuzzer(routes())
    sizes, statuses = [], Counter()
    for _ in range(CASES):
        case = fuzzer.request()
        status, kind, data = send(fuzzed.port, case, alice.headers if case[-1] else {})
        sizes.append(worker.memory_info().rss)
        statuses[status] += 1
        assert status != 500 or b"model_error" in data, (case, data)
        if status >= 400 and case[0] != "HEAD" and not case[1].startswith(("/health?", "/ping?", "/health", "/ping")):
            assert kind == "application/json", (case, status, kind, data)
            assert "error" in json.loads(data), (case, data)
    assert {200, 400, 401, 404} <= set(statuses)
    assert sizes[-1] - sizes[WARM_UP] < MAX_GROWTH_BYTES
    assert fuzzed.workers() == [worker.pid]
    assert "Traceback" not in fuzzed.web.output
    wait_for(lambda: alice.call("GET", "/models").ok)


def send(port, case, own):
    """A stream is read up to its first event."""
    method, target, headers, body, _ = case
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, target, body, headers={"Content-Type": "application/json", **headers, **own})
        answer = connection.getresponse()
        kind = answer.headers.get_content_type()
        return answer.status, kind, answer.read1() if kind == "text/event-stream" else answer.read()
    finally:
        connection.close()


TEXT = st.text(max_size=40)


@given(st.text() | st.from_regex(sse.EVENT_ID, fullmatch=True))
@example("0" * 32 + ".1\n")
@example("0" * 32 + ".१")
def test_event_ids_are_parsed_or_refused(text):
    try:
        seen = sse.parse_event_id(text, "id")
    except InvalidInput:
        return
    n = sse.GONE if seen.n is None else seen.n
    part = "" if seen.part is None else f"-{seen.part}"
    signature = f".{seen.signature}" if seen.signature else ""
    assert text == f"{seen.generation}.{n}{part}{signature}"


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_keys_are_parsed_or_refused(text):
    assert api_keys.parse(text) is None


SESSIONS = st.builds(Session, st.integers(0, 2**33), TEXT, TEXT, TEXT, TEXT)
TICKETS = st.builds(Ticket, st.integers(0, 2**33), st.sampled_from(["start", "read", "share"]), SESSIONS, TEXT, TEXT)


@given(SESSIONS | TICKETS, st.data())
def test_what_was_signed_is_read_and_nothing_else(value, data):
    text = signed.sign(SECRET, value)
    kind, other = (type(value), Ticket if isinstance(value, Session) else Session)
    if len(text) <= signed.MAX_CHARS:
        assert signed.unsign(SECRET, text, kind) == value
    assert signed.unsign(SECRET, text, other) is None
    assert signed.unsign(b"1" * 32, text, kind) is None
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from(string.ascii_letters + "._-=")) + text[at + 1 :]
    # The last character of base 64 has bits that mean nothing.
    if changed != text and at != len(text) - 1:
        assert signed.unsign(SECRET, changed, kind) is None


@given(st.text(max_size=200))
def test_anything_else_is_not_signed(text):
    assert signed.unsign(SECRET, text, Session) is None
    assert signed.unsign(SECRET, text, Ticket) is None
