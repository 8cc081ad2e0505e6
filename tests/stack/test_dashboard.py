"""The dashboard's figures are those of the whole service, whichever worker sends them."""

import signal
from contextlib import ExitStack

import psutil
import pytest
import requests
from jsonschema import validate

from harness.sse_client import connect, read_all
from harness.stack import wait_for
from harness.stack import web_alone as web_without_engine

TEXTS = ["a", "b", "c", "d"]


def dashboard(stack):
    return connect(f"{stack.url}/dashboard/events")


def newest(viewer):
    """Waits for the next figures."""
    seen = len(viewer.events)
    viewer.read(until=lambda stream: any(event.type == "message" for event in stream.events[seen:]))
    return viewer.events[-1].json


def wait_until(viewer, condition):
    return wait_for(lambda: (shown := newest(viewer)) and condition(shown) and shown, what="figures")


def point(shown, *names):
    return tuple(shown["point"][name] for name in names)


def test_page_and_its_files(fast):
    answer = requests.get(f"{fast.url}/dashboard", timeout=30)
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    for name in ("main.js", "chart.js", "state.js", "format.js", "style.css"):
        assert requests.get(f"{fast.url}/static/dashboard/{name}", timeout=30).ok
    assert "<script>" not in answer.text and "style=" not in answer.text


def test_held_streams_are_counted_from_all_workers(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_RUNNING="3").start()
    generations = [stack.submit(texts=TEXTS, hold_before=2, gate=gate.path) for _ in range(5)]
    with ExitStack() as opened, dashboard(stack) as viewer:
        for generation in [*generations, generations[0]]:
            stream = opened.enter_context(connect(stack.events_url(generation)))
            stream.read(until=lambda seen: seen.events)
        shown = wait_until(viewer, lambda shown: point(shown, "streams", "running", "queued") == (6, 3, 2))
        (engine,) = shown["engines"]
        assert (engine["name"], engine["state"], engine["running"]) == ("engine0", "ready", 3)
        assert shown["log"]["max_bytes"] == stack.settings.max_log_bytes
        assert shown["log"]["bytes"] > 0
        assert stack.metric("streams_open") == 6
        gate.open()
    for generation in generations:
        read_all(stack.events_url(generation))
    with dashboard(stack) as viewer:
        shown = wait_until(viewer, lambda shown: point(shown, "streams", "running", "queued") == (0, 0, 0))
        assert (shown["totals"]["started"], shown["totals"]["done"]) == (5, 5)


def test_tokens_and_times_are_those_generated(fast):
    def histogram(name):
        return fast.metric(f"{name}_seconds_count")

    names = ("time_to_first_token", "inter_token_latency")
    tokens, counts = fast.metric("tokens_generated_total"), [histogram(name) for name in names]
    for _ in range(3):
        read_all(fast.events_url(fast.submit(texts=TEXTS)))
    wait_for(lambda: fast.metric("tokens_generated_total") - tokens == 3 * len(TEXTS))
    wait_for(lambda: [histogram(name) for name in names] == [counts[0] + 3, counts[1] + 3 * (len(TEXTS) - 1)])
    assert fast.metric("time_to_first_token_seconds_bucket", le="+Inf") == counts[0] + 3


def test_rates_follow_generation(fast):
    with dashboard(fast) as viewer:
        before = newest(viewer)
        read_all(fast.events_url(fast.submit(texts=TEXTS * 5)))
        shown = wait_until(viewer, lambda shown: shown["recent"]["tokens"] - before["recent"]["tokens"] >= 20)
        assert shown["point"]["time_to_first_token"]["p50"] > 0
        assert shown["point"]["inter_token_latency"]["p99"] > 0
        wait_until(viewer, lambda shown: shown["point"]["tokens_per_s"] > 0)


def test_resumes_and_retries_after_a_death_are_counted(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=TEXTS, hold_before=3, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        last_id = stream.read(until=lambda seen: len(seen.events) >= 3).decoder.last_id
    stack.engines[0].kill()
    gate.open()
    stack.start_engine()
    read_all(stack.events_url(generation), last_id)
    with dashboard(stack) as viewer:
        shown = wait_until(viewer, lambda shown: shown["totals"]["done"] == 1 and shown["totals"]["resumes"])
    assert (shown["totals"]["resumes"], shown["totals"]["taken_over"], shown["totals"]["gaps_healed"]) == (1, 1, 0)
    # The dead engine had sent tokens without saying how many; the whole usage comes at the end.
    wait_for(lambda: stack.metric("tokens_generated_total") == len(TEXTS))


def test_streams_of_a_killed_worker_are_forgotten(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=TEXTS, hold_before=1, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: seen.events)
        wait_for(lambda: stack.metric("streams_open") == 1)
        psutil.Process(stack.worker_of(stream.local_port)).kill()
        wait_for(lambda: stack.metric("streams_open") == 0)
    gate.open()


def test_page_is_told_that_valkey_is_away_and_recovers(own_stack):
    stack = own_stack().start()
    with dashboard(stack) as viewer:
        newest(viewer)
        stack.valkey.kill()
        viewer.read(until=lambda stream: stream.events[-1].type == "away")
        assert viewer.events[-1].json == {"message": "Valkey does not answer"}
        stack.start_valkey()
        assert newest(viewer)["log"]["max_bytes"] == stack.settings.max_log_bytes


def test_heartbeats_while_valkey_hangs(own_stack):
    stack = own_stack(EVERSTREAM_HEARTBEAT_S="0.5").start()
    with dashboard(stack) as viewer:
        newest(viewer)
        stack.valkey.kill(signal.SIGSTOP)
        viewer.read(until=lambda stream: "heartbeat" in stream.decoder.comments)
        viewer.read(until=lambda stream: stream.events[-1].type == "away")
        stack.valkey.kill(signal.SIGCONT)
        newest(viewer)


def test_draining_worker_ends_the_stream(own_stack):
    stack = own_stack().start()
    # Wait for all workers: one that was just forked does not handle signals yet, and would be killed in the end.
    assert stack.streams() == 0
    with dashboard(stack) as viewer:
        newest(viewer)
        stack.web.popen.terminate()
        # Cleanly, not cut.
        viewer.read()
        assert viewer.decoder.retry_ms is not None
        assert all(event.id == "" for event in viewer.events)
    stack.web.popen.wait(30)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with web_without_engine(tmp_path_factory.mktemp("alone")) as stack:
        yield stack


def test_history_comes_first_and_everything_is_as_described(alone):
    document = requests.get(f"{alone.url}/openapi.json", timeout=30).json()
    described = document["paths"]["/dashboard/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    schemas = {
        each["properties"]["event"]["const"]: each["properties"]["data"]["contentSchema"]
        for each in described["schema"]["anyOf"]
    }
    with dashboard(alone) as viewer:
        newest(viewer)
        newest(viewer)
    with dashboard(alone) as viewer:
        newest(viewer)
    assert [event.type for event in viewer.events[:2]] == ["history", "message"]
    assert len(viewer.events[0].json["points"]) >= 2
    for event in viewer.events:
        validate(event.json, {**schemas[event.type], "components": document["components"]})


def test_viewers_are_bounded_and_return_their_places(alone):
    with ExitStack() as opened:
        for _ in range(32):
            opened.enter_context(dashboard(alone)).read(until=lambda seen: seen.events)
        with dashboard(alone) as refused:
            refused.read()
            (busy,) = refused.events
            assert (refused.status, busy.type, busy.json["code"]) == (200, "busy", "too_many_streams")
            assert refused.decoder.retry_ms >= 5000
        answer = requests.get(f"{alone.url}/dashboard/events", timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_streams")

    def is_admitted():
        with dashboard(alone) as viewer:
            return bool(viewer.read(until=lambda seen: seen.events).events)

    wait_for(is_admitted)


def test_head_has_no_body(alone):
    assert requests.head(f"{alone.url}/dashboard/events", timeout=30).status_code == 200
