"""What the processes write about requests: enough to see who did what, and nothing that gives access."""

import json
from urllib.parse import quote

import pytest
import requests

from harness.callers import Caller, keys
from harness.sse_client import connect, read_all
from harness.stack import running_stack, wait_for

TIMEOUT_S = 30
PROMPT = "a secret prompt"


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    options = {"EVERSTREAM_ACCESS": "keys", "WEB_CONCURRENCY": "1"}
    with running_stack(tmp_path_factory.mktemp("logged"), **options) as stack:
        yield stack


@pytest.fixture(scope="module")
def alice(logged):
    return Caller(logged, keys(logged, "add", "alice"))


def lines(part):
    found = [json.loads(line) for line in part.output.splitlines() if line.startswith("{")]
    assert all({"time", "level", "logger"} <= set(line) for line in found)
    return found


def wait_for_line(part, **wanted):
    def found():
        return next((line for line in lines(part) if wanted.items() <= line.items()), None)

    return wait_for(found, what=f"a line with {wanted}")


def test_everything_is_a_json_line(logged, alice):
    alice.start(texts=["a"])
    for part in (logged.web, logged.engines[0]):
        assert lines(part)
        assert [line for line in part.output.splitlines() if not line.startswith("{")] == []


def test_request_and_stream_have_a_line_each(logged, alice):
    request_id = "req-from-the-client"
    answer = alice.call("POST", "/generations", json={"texts": [PROMPT, "b"]}, headers={"X-Request-Id": request_id})
    assert answer.headers["x-request-id"] == request_id
    generation = answer.json()["id"]
    started = wait_for_line(logged.web, event="request", request_id=request_id)
    assert started | {"method": "POST", "route": "/generations", "status": 201, "key": "alice"} == started
    assert started["generation"] == generation[:8] and started["ms"] >= 0 and started["bytes"] > 10
    alice.read(f"/generations/{generation}/events?ping=true")
    ended = wait_for_line(logged.web, event="stream_end", generation=generation[:8])
    assert ended | {"ended": "done", "key": "alice", "entries": 3} == ended
    assert ended["route"] == "/generations/<generation>/events" and ended["ttft_ms"] >= 0 and ended["bytes"] > 50
    ran = wait_for_line(logged.engines[0], event="generation", request_id=request_id)
    assert ran | {"generation": generation[:8], "ended": "done", "tokens": 3} == ran


def test_reader_that_leaves_is_seen(logged, alice, gate):
    generation = alice.start(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(logged.events_url(generation), headers=alice.headers) as stream:
        stream.read(lambda got: any(event.type == "message" for event in got.events))
    assert wait_for_line(logged.web, event="stream_end", generation=generation[:8])["ended"] == "left"
    gate.open()


def test_parts_of_a_joined_stream_have_lines_too(logged, alice, gate):
    held = alice.start(texts=["a", "b"], hold_before=2, gate=gate.path)
    done = alice.start(texts=["x"])
    with connect(f"{logged.url}/events?generation={held}&generation={done}", headers=alice.headers) as stream:
        stream.read(lambda got: any(event.type == "done" for event in got.events))
    assert wait_for_line(logged.web, event="stream_end", generation=done[:8])["ended"] == "done"
    assert wait_for_line(logged.web, event="stream_end", generation=held[:8])["ended"] == "left"
    gate.open()
    assert "Traceback" not in logged.web.output and "exception" not in logged.web.output


def test_each_response_has_an_id_and_bad_ones_are_replaced(logged):
    ids = {requests.get(f"{logged.url}/version", timeout=TIMEOUT_S).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    for bad in ("x" * 129, "a b", "a;b"):
        headers = {"X-Request-Id": bad}
        answer = requests.get(f"{logged.url}/nowhere", headers=headers, timeout=TIMEOUT_S)
        assert answer.headers["x-request-id"].startswith("req_")


def test_logs_have_no_prompts_ids_keys_or_tickets(logged, alice):
    generation = alice.start(texts=[PROMPT])
    shared = alice.call("POST", "/shares", json={"generation": generation}).json()
    read_all(logged.url + shared["url"])
    alice.read(f"/stream?texts={quote(PROMPT)}&request_id=0123456789abcdef0123")
    alice.call("GET", f"/generations/{generation}?after=0")
    alice.call("GET", f"/nowhere/{generation}")
    wait_for_line(logged.web, event="request", status=404)
    wait_for_line(logged.engines[0], event="generation", generation=generation[:8])
    whole = logged.web.output + logged.engines[0].output
    for secret in (PROMPT, generation, shared["ticket"], alice.key.rpartition("-")[2], "0123456789abcdef0123"):
        assert secret not in whole


def test_text_is_for_terminals(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1", EVERSTREAM_LOG_FORMAT="text").start()
    read_all(f"{stack.url}/stream?texts=a")
    wait_for(lambda: "stream_end /stream " in stack.web.output, what="the stream's line")
    assert "ready: " in stack.engines[0].output
