"""everstream-client in a real Chromium while everything around it breaks: nothing is lost or repeated, and each reason
is told."""

import os
import signal
from contextlib import contextmanager

import pytest
import requests

from everstream.settings import PROJECT_ROOT
from harness.cutting_proxy import CuttingProxy
from harness.hostile_server import GENERATION, HostileServer, Reply, html, json_error, stream
from harness.stack import running_stack, wait_for
from tests.browser.client_page import (
    TRANSPORTS,
    assert_whole,
    begin,
    error,
    events,
    numbers,
    open_client,
    wait_for_text,
    wait_in,
)

HELD = {"texts": ["a", "b", "c"], "hold_before": 3}
OPEN = (0, "open", '{"generation":"x","model":"m"}')
A, B = (1, "message", '{"text":"a"}'), (2, "message", '{"text":"b"}')
DONE = (3, "done", '{"finish_reason":"stop","usage":null}')
WHOLE = stream(OPEN, A, B, DONE)


@pytest.fixture(params=TRANSPORTS)
def options(request):
    return TRANSPORTS[request.param]


@pytest.fixture
def proxy(fast):
    with CuttingProxy(fast.port) as proxy:
        yield proxy


def reasons(page):
    return [data["reason"] for data in events(page, "reconnecting")]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """One to break. Each test leaves it whole."""
    with running_stack(tmp_path_factory.mktemp("broken")) as stack:
        yield stack


@pytest.fixture
def held(page, stack, options, gate):
    """A page that has read two of three texts."""
    open_client(page, stack.url, **options)
    begin(page, "start", {**HELD, "gate": gate.path})
    wait_for_text(page, "ab")
    return page


def worker(page):
    """The process that the page was connected to last."""
    return events(page, "connected")[-1]["worker"]


def test_killed_worker(held, stack, gate):
    killed = worker(held)
    os.kill(killed, signal.SIGKILL)
    wait_in(held, lambda: worker(held) != killed)
    gate.open()
    assert_whole(held, "abc")
    assert reasons(held)[0]["code"] == "connection_lost"


def test_killed_gunicorn(held, stack, gate):
    stack.web.stop()
    wait_in(held, lambda: [data["attempt"] for data in events(held, "reconnecting")][:3] == [1, 2, 3])
    gate.open()
    stack.start_web()
    assert_whole(held, "abc")


@pytest.mark.parametrize("options", [TRANSPORTS["eventsource"]])
def test_drained_gunicorn(held, stack, gate):
    stack.web.kill(signal.SIGTERM)
    stack.start_web()
    wait_in(held, lambda: worker(held) in stack.workers())
    gate.open()
    assert_whole(held, "abc")


def test_killed_engine(held, stack, gate):
    stack.engines[-1].kill(signal.SIGKILL)
    wait_in(held, lambda: "loading" in [data["state"] for data in events(held, "engine")])
    gate.open()
    stack.start_engine()
    assert_whole(held, "abc")
    assert reasons(held) == []
    assert events(held, "resumed") == [{"attempt": 2}]


def test_start_waits_for_a_service_that_is_down(page, stack, options):
    open_client(page, stack.url, **options)
    stack.web.stop()
    begin(page, "start", {"texts": ["a"]})
    wait_in(page, lambda: len(reasons(page)) >= 2)
    stack.start_web()
    assert_whole(page, "a")


def test_frozen_link_is_noticed(page, proxy, options, gate):
    open_client(page, proxy.url, **options)
    begin(page, "start", {**HELD, "gate": gate.path})
    wait_for_text(page, "ab")
    proxy.mode = "freeze"
    wait_in(page, lambda: [reason["code"] for reason in reasons(page)] == ["silent"])
    # The next connection isn't answered either, but is given time for that, whatever else happens.
    before = proxy.accepted
    page.evaluate("() => { for (let n = 0; n < 20; n += 1) dispatchEvent(new Event('online')); }")
    assert len(reasons(page)) == 1 and proxy.accepted <= before + 1
    gate.open()
    proxy.mode = "pass"
    assert_whole(page, "abc")


def test_start_whose_answer_is_lost_starts_once(page, fast, proxy, options):
    open_client(page, proxy.url, **options)
    before = fast.metric("generations_started_total")
    proxy.mode = "cut"
    begin(page, "start", {"texts": ["a"]})
    wait_in(page, lambda: proxy.cuts >= 2)
    proxy.mode = "pass"
    assert_whole(page, "a")
    # Counters reach the log within a second, the later of two not before the earlier.
    fast.submit(texts=["b"])
    wait_for(lambda: fast.metric("generations_started_total") >= before + 2)
    assert fast.metric("generations_started_total") == before + 2


def test_stop_is_sent_until_it_is_answered(page, fast, proxy, options, gate):
    open_client(page, proxy.url, **options)
    begin(page, "start", {**HELD, "gate": gate.path})
    wait_for_text(page, "ab")
    proxy.mode = "refuse"
    page.evaluate("() => { window.stopped = false; last.answer.stop().then(() => { stopped = true; }); }")
    wait_in(page, lambda: len(reasons(page)) >= 2)
    assert page.evaluate("stopped") is False
    proxy.mode = "pass"
    assert error(page)["code"] == "cancelled"
    wait_in(page, "stopped")
    wait_for(lambda: fast.running() == 0)


# What a hostile server, or one in the service's place, says.


@contextmanager
def hostile(page, options, *replies, **more):
    with HostileServer(*replies, **more) as server:
        open_client(page, server.url, **options)
        yield server
        page.evaluate("client.close()")


OTHERS = [
    (html(502), 502, "not_everstream"),
    (html(401), 401, "not_everstream"),
    (html(403), 403, "not_everstream"),
    (html(404), 404, "not_everstream"),
    (html(429, **{"Retry-After": "1"}), 429, "not_everstream"),
    (html(200), 200, "not_everstream"),
    (json_error(503, "too_many_streams"), 503, "too_many_streams"),
    (json_error(429, "too_many"), 429, "too_many"),
]


@pytest.mark.parametrize("kind", TRANSPORTS)
def test_others_answers_are_told_apart(page, kind):
    # EventSource doesn't say what it got, so its transport asks a second time.
    times = 1 if kind == "fetch" else 2
    replies = [reply for reply, _, _ in OTHERS for _ in range(times)]
    with hostile(page, TRANSPORTS[kind], *replies, WHOLE):
        begin(page, "follow", GENERATION)
        for n, (_, status, code) in enumerate(OTHERS):
            wait_in(page, lambda n=n: len(reasons(page)) > n)
            # Don't wait for the longer and longer delays.
            found = reasons(page)[n]
            assert (found["status"], found["code"]) == (status, code)
            assert str(status) in found["message"] or code != "not_everstream"
            page.evaluate("() => { dispatchEvent(new Event('online')); }")
        assert_whole(page, "ab")
        delays = [data["delay_ms"] for data in events(page, "reconnecting")]
        assert delays[4] >= 1000
        assert [data["attempt"] for data in events(page, "reconnecting")] == list(range(1, len(OTHERS) + 1))


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_refusals_are_final(page, options, status):
    with hostile(page, options, json_error(status, "not_allowed")):
        begin(page, "follow", GENERATION)
        found = error(page)
        assert (found["status"], found["code"]) == (status, "not_allowed")
        assert events(page, "failed")[0]["code"] == "not_allowed"


def test_time_that_the_server_asks_for_is_given(page, options):
    with hostile(page, options, html(503, **{"Retry-After": "3600"})) as server:
        begin(page, "follow", GENERATION)
        wait_in(page, lambda: len(reasons(page)) == 1)
        asked = len(server.paths())
        begin(page, "follow", GENERATION)
        page.evaluate("id => { client.stop(id); }", GENERATION)
        wait_in(page, lambda: ("DELETE", f"/generations/{GENERATION}") in server.requests)
        # Each response has arrived before the next page, and whatever is sent because of the events before the last.
        page.evaluate("() => fetch('/').then(() => fetch('/'))")
        page.evaluate("() => { for (const name of ['online', 'pageshow']) dispatchEvent(new Event(name)); }")
        page.evaluate("() => fetch('/').then(() => fetch('/'))")
        assert len(server.paths()) == asked and len(server.requests) == asked + 1


def test_busy_service(page, options):
    busy = stream((None, "busy", '{"code":"too_many_streams","message":"full","retry_ms":60}'))
    with hostile(page, options, busy, WHOLE):
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert reasons(page) == [{"status": 503, "code": "too_many_streams", "message": "full"}]


def test_repeated_entries_are_dropped(page, options):
    with hostile(page, options, stream(OPEN, A, A, OPEN, A, B, A, B, DONE)):
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert numbers(page) == [0, 1, 2, 3]


def test_gap_is_healed_from_the_last_entry(page, options):
    with hostile(page, options, stream(OPEN, A, DONE), stream(A, B, DONE)) as server:
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert [reason["code"] for reason in reasons(page)] == ["gap"]
        assert server.paths() == [f"/events?generation={GENERATION}", f"/events?generation={GENERATION}.1"]


NONSENSE = [
    (1, "message", "no JSON"),
    (1, "message", "null"),
    (None, "message", '{"text":"a"}'),
    ("x", "message", '{"text":"a"}'),
    ("expired", "message", '{"text":"a"}'),
    (None, "queued", "[]"),
    (None, "ping", "1"),
]


@pytest.mark.parametrize("event", NONSENSE)
def test_nonsense_is_a_lost_connection(page, options, event):
    with hostile(page, options, stream(event), stream(OPEN, A, B, DONE)):
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert [reason["code"] for reason in reasons(page)] == ["invalid_event"]


def test_hostile_intervals_make_no_tight_loop(page, options):
    ping = '{"generation":"%s","interval_ms":%s,"retry_ms":%s,"last":0}'
    pings = [(None, "ping", ping % (GENERATION, *each)) for each in ((0, -1), ("null", "1e99"), (1e-9, '"x"'))]
    with hostile(page, options, stream(OPEN, *pings)) as server:
        begin(page, "follow", GENERATION)
        wait_in(page, lambda: len(reasons(page)) == 1)
        assert len(server.paths()) == 1
        assert events(page, "reconnecting")[0]["delay_ms"] == 3_600_000
        page.evaluate("last.answer.close()")


def test_pings_alone_are_no_progress(page, options):
    """A server that accepts each connection and ends it is asked less and less often."""
    with hostile(page, options, stream()):
        begin(page, "follow", GENERATION)
        wait_in(page, lambda: len(reasons(page)) == 4)
        found = events(page, "reconnecting")
        assert [data["attempt"] for data in found] == [1, 2, 3, 4]
        assert found[0]["delay_ms"] == 50 and found[3]["delay_ms"] >= 2000


def test_start_is_not_fooled_by_another_server(page, options):
    login = Reply(b'{"id":"../../login"}', 200, {})
    with hostile(page, options, login, login, Reply(b'{"state":"stopping"}', 202, {})) as server:
        page.evaluate("id => client.stop(id)", GENERATION)
        assert [method for method, _ in server.requests] == ["DELETE"] * 3


def test_closed_while_it_waits_to_reconnect(page, options):
    with hostile(page, options, html(502)) as server:
        begin(page, "follow", GENERATION)
        wait_in(page, lambda: len(reasons(page)) == 1)
        page.evaluate("last.answer.close()")
        assert error(page)["code"] == "closed"
        asked = len(server.paths())
        # A second one connects for itself alone, at once.
        server.replies[:] = [WHOLE]
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert len(server.paths()) == asked + 1


def test_follower_added_to_a_connection(page, options):
    with hostile(page, options, stream(OPEN, A, holds=True), stream(OPEN, A, B, DONE)) as server:
        begin(page, "follow", GENERATION)
        wait_in(page, lambda: server.paths())
        page.evaluate("() => { window.first = last; }")
        begin(page, "follow", GENERATION)
        assert_whole(page, "ab")
        assert page.evaluate("first.answer.result().then(({ text }) => text)") == "ab"
        assert page.evaluate("first.events.map(({ n }) => n).filter((n) => n !== null)") == [0, 1, 2, 3]
        assert len(server.paths()) == 2


def test_interrupted_on_purpose(page, fast, options, gate):
    open_client(page, fast.url, **options)
    begin(page, "start", {**HELD, "gate": gate.path})
    wait_for_text(page, "ab")
    page.evaluate("client.interrupt(600)")
    page.evaluate("() => { dispatchEvent(new Event('online')); }")
    gate.open()
    assert_whole(page, "abc")
    assert [(data["delay_ms"], data["reason"]["code"]) for data in events(page, "reconnecting")] == [
        (600, "interrupted")
    ]
    assert events(page, "caught_up")[-1]["count"] >= 1


def test_module_is_served_to_be_cached_by_its_tag(fast):
    answer = requests.get(f"{fast.url}/static/client/everstream.js", timeout=30)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.content == (PROJECT_ROOT / "static/client/everstream.js").read_bytes()
    again = requests.get(answer.url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=30)
    assert again.status_code == 304
