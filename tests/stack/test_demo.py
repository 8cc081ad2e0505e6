"""Faults on request: what is killed comes back, and no stream loses or repeats anything."""

from contextlib import closing
from itertools import islice

import psutil
import pytest
import requests
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import allow_header_conformance, positive_data_acceptance

from everstream.log.web_log import WebLog
from harness.sse_client import assert_whole, connect, follow_to_the_end, read_all, text_of
from harness.stack import MODELS, Supervised, wait_for, web_alone
from tests.stack.test_openapi import COVERAGE_CASES, close, schema_of

TEXTS = [f"{n} " for n in range(40)]
REQUEST_TIMEOUT_S = 30


def kill(stack, what, headers=None, **more):
    return requests.post(
        f"{stack.url}/demo/kill", json={"what": what, **more}, headers=headers, timeout=REQUEST_TIMEOUT_S
    )


def refusal(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


@pytest.fixture
def launched(tmp_path):
    stack = Supervised(tmp_path, WEB_CONCURRENCY="1", EVERSTREAM_DEMO="1")
    try:
        stack.launch()
        yield stack
    finally:
        for process in stack.family() if stack.supervisor.popen.poll() is None else []:
            process.kill()
        stack.stop()


def part_to_die(stack, what):
    if what == "engine":
        return stack.part("everstream.engine")
    return psutil.Process(requests.get(f"{stack.url}/healthz", timeout=REQUEST_TIMEOUT_S).json()["pid"])


@pytest.mark.parametrize("what", ["worker", "engine"])
def test_answer_is_whole_although_a_process_was_killed(launched, gate, what):
    assert requests.get(f"{launched.url}/demo", timeout=REQUEST_TIMEOUT_S).json() == {"kills": ["worker", "engine"]}
    generation = launched.submit(texts=TEXTS, hold_before=20, gate=gate.path)
    with connect(launched.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) >= 20)
        dying = part_to_die(launched, what)
        answer = kill(launched, what)
        assert answer.status_code == 202
        assert answer.json()["what"] == what
        psutil.wait_procs([dying], timeout=REQUEST_TIMEOUT_S)
        assert not dying.is_running()
        gate.open()
        events = (stream.read_until_cut() if what == "worker" else stream.read()).events
        last_id = stream.decoder.last_id
    if what == "worker":
        wait_for(launched.web_answers)
        events = [*events, *follow_to_the_end(launched.events_url(generation), last_id)[0]]
    assert_whole(events)
    assert text_of(events) == "".join(TEXTS)
    assert [event.type for event in events].count("resumed") == (what == "engine")
    # Both are there again.
    assert text_of(read_all(launched.events_url(launched.submit(texts=["a"])))) == "a"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with web_alone(tmp_path_factory.mktemp("demo"), EVERSTREAM_DEMO="1") as stack:
        yield stack


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, "Sec-Fetch-Site"),
        ({"Sec-Fetch-Site": "same-site"}, "Sec-Fetch-Site"),
        ({"Origin": "https://example.org"}, "Origin"),
        ({"Origin": "null"}, "Origin"),
        ({"Origin": "http://["}, "Origin"),
        ({"Origin": "http://127.0.0.1"}, "Origin"),
    ],
)
def test_other_sites_pages_are_refused(demo, headers, param):
    pid = part_to_die(demo, "worker").pid
    assert refusal(kill(demo, "worker", headers)) == (403, "cross_origin", param)
    assert part_to_die(demo, "worker").pid == pid


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_only_json_is_accepted(demo, content_type):
    answer = requests.post(
        f"{demo.url}/demo/kill",
        data='{"what":"worker"}',
        headers={"Content-Type": content_type},
        timeout=REQUEST_TIMEOUT_S,
    )
    assert refusal(answer) == (415, "unsupported_media_type", "Content-Type")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "what"),
        ({"what": "valkey"}, "what"),
        ({"what": 1}, "what"),
        ({"what": "engine", "model": 1}, "model"),
        ({"what": "engine", "model": "nobody"}, "model"),
        ({"what": "worker", "model": ""}, "model"),
        ({"what": "worker", "pid": 1}, "pid"),
        ([], "body"),
    ],
)
def test_bad_requests_name_the_field(demo, body, param):
    answer = requests.post(f"{demo.url}/demo/kill", json=body, timeout=REQUEST_TIMEOUT_S)
    assert refusal(answer) == (400, "invalid_request", param)


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("label", ["GET /demo", "POST /demo/kill"])
def test_requests_are_answered_as_described(demo, label, mode):
    """There is no engine to kill, and it is never a worker's turn."""
    with closing(WebLog(demo.settings)) as log:
        log.take_kill_turn("worker", 600)
    document = requests.get(f"{demo.url}/openapi.json", timeout=REQUEST_TIMEOUT_S).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            close(operation["responses"], document)
    schema = schema_of(document, demo.url)
    operation = schema.find_operation_by_label(label)
    cases = schema.iter_coverage_cases(
        operation, generation_modes=[mode], generation_config=schema.config.generation_for(operation=operation)
    )
    # 429 and 503 are what a valid request gets here.
    excluded = [not_a_server_error, positive_data_acceptance, allow_header_conformance]
    for case in islice(cases, COVERAGE_CASES):
        case.call_and_validate(timeout=REQUEST_TIMEOUT_S, excluded_checks=excluded)


def test_get_kills_nothing(demo):
    answer = requests.get(f"{demo.url}/demo/kill", timeout=REQUEST_TIMEOUT_S)
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, {"POST", "OPTIONS"})


def test_without_an_engine_none_is_killed(demo):
    answer = kill(demo, "engine")
    assert refusal(answer) == (503, "no_engine", None)
    assert answer.headers["Retry-After"]


def test_worker_dies_after_its_answer_and_only_once_in_a_while(own_stack):
    stack = own_stack(EVERSTREAM_DEMO="1").start()
    before = set(wait_for(lambda: len(stack.workers()) == 2 and stack.workers()))
    own = {"Origin": stack.url, "Sec-Fetch-Site": "same-origin"}
    answer = kill(stack, "worker", own)
    assert (answer.status_code, answer.json()) == (202, {"what": "worker"})
    wait_for(lambda: len(before & set(stack.workers())) == 1)
    # Whichever worker answers.
    with closing(WebLog(stack.settings)) as log:
        assert not log.take_kill_turn("worker", 60)
        assert log.take_kill_turn("other", 60)
    for what in ("worker", "engine"):
        with closing(WebLog(stack.settings)) as log:
            log._client.set(log._keys.kill_turn(what), "", px=600_000)
        answer = kill(stack, what)
        assert refusal(answer) == (429, "too_many_kills", None)
        assert answer.headers["Retry-After"]


def test_engine_of_the_named_model_is_killed(own_stack):
    stack = own_stack(models={"a": MODELS / "scripted", "b": MODELS / "plain"}, EVERSTREAM_DEMO="1").start()
    one, other = stack.engines
    answer = kill(stack, "engine", model="b")
    assert (answer.status_code, answer.json()) == (202, {"what": "engine", "name": "engine1-b"})
    wait_for(lambda: other.popen.poll() is not None)
    assert other.popen.returncode == -9
    assert one.popen.poll() is None


def test_without_the_setting_it_is_as_if_it_did_not_exist(own_stack):
    stack = own_stack().start()
    unknown = requests.post(f"{stack.url}/nothing", json={}, timeout=REQUEST_TIMEOUT_S)
    assert kill(stack, "worker").content == unknown.content
    for method, path in (("GET", "/demo"), ("GET", "/demo/kill"), ("OPTIONS", "/demo/kill"), ("POST", "/demo/kill")):
        assert requests.request(method, stack.url + path, timeout=REQUEST_TIMEOUT_S).status_code == 404
    assert "/demo" not in requests.get(f"{stack.url}/openapi.json", timeout=REQUEST_TIMEOUT_S).text
    with closing(WebLog(stack.settings)) as log:
        log.ask_to_die("engine0")
        # The engine takes the request, and ignores it.
        wait_for(lambda: not log._client.exists(log._keys.kill("engine0")))
    assert text_of(read_all(stack.events_url(stack.submit(texts=["a"])))) == "a"
    assert stack.engines[0].popen.poll() is None
