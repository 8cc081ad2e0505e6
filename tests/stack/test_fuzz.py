"""Thousands of requests that no client would send, on every route: each gets an answer of its API's form, soon, and the
processes stay as they were. And the parsers of what clients send back."""

import http.client
import json
import string

import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from everstream.apis import APIS
from everstream.errors import InvalidInput
from everstream.log import api_keys
from everstream.settings import load_settings
from everstream.web import sse
from everstream.web.access import signed
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
    return Caller(fuzzed, keys(fuzzed, "add", "alice", "--scopes", "infer,admin"))


def routes():
    app = create_app(APIS, load_settings({}))
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule not in (*ENDLESS, *KILLS)]
    return sorted((method, rule.rule) for rule in rules for method in rule.methods)


TEXT = st.text(max_size=40)
LATIN = st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60)
IDS = st.one_of(
    st.text(string.hexdigits.lower(), min_size=32, max_size=32),
    st.builds("{}.{}".format, st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(-1, 10**12)),
    st.sampled_from(["resp_" + "0" * 32, "0" * 32, ".", "..", "%00", "x" * 300]),
    LATIN,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    *("prompt", "messages", "input", "stream", "model", "max_tokens", "n", "inputs", "parameters", "text_input"),
    *("request_id", "flush_ms", "tools", "access", "generation", "key", "tokens", "temperature", "expires_in_s"),
)
HEADER_NAMES = (
    *("Last-Event-ID", "Idempotency-Key", "Content-Type", "Accept", "Cookie", "X-Request-Id", "Origin", "Range"),
    *("Sec-Fetch-Site", "Content-Encoding", "Inference-Header-Content-Length", "X-Forwarded-For"),
)
QUERY_NAMES = (
    *("prompt", "last_event_id", "ticket", "generation", "format", "ping", "compact", "after", "limit", "model"),
    *("stream", "starting_after", "request_id", "messages"),
)
BODIES = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.sampled_from([b"[" * 3000, b'{"a":' * 3000, b'{"prompt":"' + b"x" * 100_000, b"\xff\xfe{}", b'{"a":1,"a":2}']),
)
VALUES = st.one_of(
    LATIN, IDS.filter(lambda text: text.isascii()), st.sampled_from(["application/json", "text/event-stream"])
)
HEADERS = st.dictionaries(st.sampled_from(HEADER_NAMES), VALUES, max_size=4)
QUERIES = st.dictionaries(st.sampled_from(QUERY_NAMES), IDS | TEXT, max_size=4)


@st.composite
def cases(draw):
    method, rule = draw(st.sampled_from(routes()))
    path = "/".join(quoted(draw(IDS)) if part.startswith("<") else part for part in rule.split("/"))
    query = "&".join(f"{name}={quoted(value)}" for name, value in draw(QUERIES).items())
    return method, f"{path}?{query}" if query else path, draw(HEADERS), draw(BODIES), draw(st.booleans())


def quoted(text):
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def test_every_answer_has_its_form(fuzzed, alice):
    worker = psutil.Process(fuzzed.workers()[0])
    sizes, statuses = [], set()

    @settings(max_examples=CASES)
    @given(cases())
    def check(case):
        method, target, _headers, _body, has_key = case
        status, kind, data = send(fuzzed.port, case, alice.headers if has_key else {})
        sizes.append(worker.memory_info().rss)
        statuses.add(status)
        assert status != 500 or b"model_error" in data, (case, data)
        if status >= 400 and method != "HEAD" and target not in ("/health", "/ping"):
            assert kind == "application/json", (case, status, kind, data)
            assert "error" in json.loads(data), (case, data)

    check()
    assert len(sizes) >= CASES
    assert {200, 400, 401, 404} <= statuses
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


@given(st.text() | IDS | st.from_regex(sse.EVENT_ID, fullmatch=True))
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
