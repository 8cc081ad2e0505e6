"""The wire format of real gunicorn workers: events, ids, resumes and endings."""

import http.client
import json
import re
import uuid
from contextlib import closing
from urllib.parse import urlencode

import pytest
import requests

from everstream.web import sse
from harness.sse_client import assert_whole, connect, follow_to_the_end, is_over, read_all, text_of
from harness.stack import wait_for

NASTY = [
    " leading",
    "trailing ",
    "\n",
    "\r\n",
    "\r",
    "a\nb\r\nc\rd",
    "\u2028\u2029\u0085",
    "",
    "data: not an event\n\n",
    "id: 7",
    ": no comment",
    "\0",
    "\t",
    "👩‍👩‍👧‍👦",
    "é",
    "e\u0301",
    "</script><b>&amp;",
    '"quoted\\"',
    "漢字",
]


def stream_url(stack, **query):
    return f"{stack.url}/stream?{urlencode(query, doseq=True)}"


def test_stream_byte_for_byte(fast):
    with requests.get(stream_url(fast, texts=[" The", " end"]), timeout=30) as answer:
        body = answer.content.decode()
    generation = re.search(r'"generation":"([0-9a-f]{32})"', body)[1]
    retry_ms = int(re.search("retry: ([0-9]+)\n", body)[1])
    assert 50 <= retry_ms <= 75
    assert body == (
        ": everstream\n"
        f"retry: {retry_ms}\n\n"
        "event: open\n"
        f"id: {generation}.0\n"
        f'data: {{"generation":"{generation}","model":"smollm2-135m-instruct"}}\n\n'
        f"id: {generation}.1\n"
        'data: {"text":" The"}\n\n'
        f"id: {generation}.2\n"
        'data: {"text":" end"}\n\n'
        "event: done\n"
        f"id: {generation}.3\n"
        'data: {"finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    )
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"


def test_headers_and_open_event_precede_the_first_output(fast, gate):
    with connect(stream_url(fast, texts=["a"], hold_before=1, gate=gate.path)) as stream:
        stream.read(until=lambda seen: seen.events)
        assert (stream.status, stream.decoder.comments) == (200, ["everstream"])
        assert [event.type for event in stream.events] == ["open"]
        gate.open()
        assert_whole(stream.read().events)


@pytest.mark.parametrize("http_version", ["HTTP/1.1", "HTTP/1.0"])
def test_heartbeats_while_the_model_is_silent(fast, gate, http_version):
    url = stream_url(fast, texts=["a"], hold_before=1, gate=gate.path)
    with connect(url, http_version=http_version) as stream:
        stream.read(until=lambda seen: seen.decoder.comments.count("heartbeat") >= 2)
        gate.open()
        assert_whole(stream.read().events)


@pytest.mark.parametrize("http_version", ["HTTP/1.1", "HTTP/1.0"])
def test_tokens_one_by_one(fast, gate, http_version):
    """They are written directly to the socket, as chunks except in HTTP/1.0, which has no chunked bodies."""
    url = stream_url(fast, texts=["a", "b", "c", "d"], hold_before=2, gate=gate.path, pause_ms=20)
    with connect(url, http_version=http_version) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        gate.open()
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "abcd"
    assert stream.decoder.ignored == []


def test_frequent_heartbeats_are_not_a_flood(own_stack, gate):
    stack = own_stack(EVERSTREAM_HEARTBEAT_S="0.2").start()
    with connect(stream_url(stack, texts=["a"], hold_before=1, gate=gate.path)) as stream:
        stream.read(until=lambda seen: seen.decoder.comments.count("heartbeat") >= 3)
        gate.open()
        assert_whole(stream.read().events)
        # As many as in ten seconds. Without a pause between them there would be thousands.
        assert stream.decoder.comments.count("heartbeat") < 50


@pytest.mark.parametrize("start", ["/stream", "/generations"])
def test_nasty_text_survives_exactly(fast, start):
    if start == "/stream":
        events = read_all(stream_url(fast, texts=NASTY))
    else:
        generation = fast.submit(texts=NASTY)
        events = read_all(fast.events_url(generation))
        assert fast.show(generation)["text"] == "".join(NASTY)
    assert [event.json["text"] for event in events if event.type == "message"] == NASTY
    assert_whole(events)


def test_resume_after_every_entry_equals_the_uncut_stream(fast):
    generation = fast.submit(texts=NASTY)
    whole = read_all(fast.events_url(generation))
    assert_whole(whole)
    for cut in range(1, len(whole)):
        rest = read_all(fast.events_url(generation), last_id=whole[cut - 1].id)
        assert whole[:cut] + rest == whole
        assert read_all(f"{fast.url}/stream", last_id=whole[cut - 1].id) == rest


def test_resume_after_every_byte_equals_the_uncut_stream(fast):
    generation = fast.submit(texts=NASTY[:8])
    url = fast.events_url(generation)
    with connect(url) as uncut:
        whole, size = uncut.read().events, uncut.bytes_read
    for cut in range(1, size):
        with connect(url) as stream:
            seen, last_id = stream.read(max_bytes=cut).events, stream.decoder.last_id
        if not is_over(seen):
            seen += read_all(url, last_id=last_id)
        assert seen == whole, f"cut after {cut} bytes"


def test_live_stream_cut_repeatedly_is_whole(fast):
    generation = fast.submit(texts=["tick "], repeat=400, pause_ms=1)
    events, connections = follow_to_the_end(fast.events_url(generation), max_bytes=1500)
    assert connections > 10
    assert_whole(events)
    assert text_of(events) == "tick " * 400


def test_two_viewers_of_one_generation_see_the_same(fast, gate):
    generation = fast.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(fast.events_url(generation)) as first:
        first.read(until=lambda seen: "message" in [event.type for event in seen.events])
        with connect(fast.events_url(generation)) as second:
            gate.open()
            assert first.read().events == second.read().events
    assert text_of(first.events) == "abc"


def test_eventsource_gets_204_after_the_end(fast):
    events = read_all(stream_url(fast, texts=["a"]))
    for url in (f"{fast.url}/stream", fast.events_url(events[0].json["generation"])):
        with connect(url, last_id=events[-1].id) as again:
            assert again.status == 204
        with connect(f"{url}?last_event_id={events[-1].id}") as again:
            assert again.status == 204


def test_unknown_generation_gets_a_terminal_event_then_204(fast):
    unknown = "0" * 32
    for url in (f"{fast.url}/stream", fast.events_url(unknown)):
        (event,) = read_all(url, last_id=f"{unknown}.31")
        assert (event.type, event.json["code"]) == ("failed", "generation_expired")
        with connect(url, last_id=event.id) as again:
            assert again.status == 204
    assert read_all(fast.events_url(unknown))[0].json["code"] == "generation_expired"


def test_request_id_attaches_to_the_generation_it_started(fast, gate):
    request_id = str(uuid.uuid4())
    url = stream_url(fast, texts=["a", "b"], hold_before=2, gate=gate.path, request_id=request_id)
    with connect(url) as first:
        first.read(until=lambda seen: len(seen.events) == 2)
        with connect(url) as second:
            gate.open()
            assert second.read().events == first.read().events
    generation = first.events[0].json["generation"]
    # flush_ms belongs to the submission that started the generation, and not to the request's identity.
    again = {"texts": ["a", "b"], "hold_before": 2, "gate": str(gate.path), "request_id": request_id, "flush_ms": 16}
    assert fast.submit(**again) == generation


@pytest.mark.parametrize("change", [{"texts": ["other"]}, {"pause_ms": 1}])
def test_request_id_with_another_body_is_a_conflict(fast, change):
    request = {"texts": ["a"], "request_id": str(uuid.uuid4())}
    generation = fast.submit(**request)
    answer = requests.post(f"{fast.url}/generations", json=request | change, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "request_id_conflict", "request_id")
    answer = requests.get(stream_url(fast, **request | change), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "request_id_conflict")
    assert text_of(read_all(fast.events_url(generation))) == "a"


def test_empty_last_event_id_is_ignored(fast):
    assert text_of(read_all(stream_url(fast, texts=["a"], last_event_id=""))) == "a"


def test_last_event_id_header_overrides_the_query(fast):
    generation = fast.submit(texts=["a", "b", "c"])
    url = fast.events_url(generation)
    whole = read_all(url)
    assert read_all(f"{url}?last_event_id={whole[1].id}", last_id=whole[2].id) == whole[3:]


def test_show_reports_progress(fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: fast.show(generation)["text"] == "a")
    assert fast.show(generation) == {
        "id": generation,
        "state": "running",
        "text": "a",
        "finish_reason": None,
        "usage": None,
        "last": 1,
    }
    gate.open()
    read_all(fast.events_url(generation))
    shown = fast.show(generation)
    assert (shown["state"], shown["text"], shown["finish_reason"]) == ("done", "ab", "stop")
    assert shown["usage"]["completion_tokens"] == 2


def test_delete_stops_a_running_generation(fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(fast.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        wait_for(lambda: fast.running() == 1)
        answer = requests.delete(f"{fast.url}/generations/{generation}", timeout=30)
        assert (answer.status_code, answer.json()["state"]) == (202, "stopping")
        events = stream.read().events
    assert_whole(events)
    assert (events[-1].type, events[-1].json) == ("cancelled", {"reason": "requested"})
    wait_for(lambda: fast.running() == 0)
    again = requests.delete(f"{fast.url}/generations/{generation}", timeout=30)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_model_that_raises_ends_the_stream_with_failed(fast):
    events = read_all(stream_url(fast, texts=["a", "b"], raise_before=2))
    assert_whole(events)
    assert events[-1].type == "failed"
    assert events[-1].json == {
        "code": "model_error",
        "message": "the model raised ValueError: told to raise\nover two lines",
    }
    assert fast.show(events[0].json["generation"])["error"]["code"] == "model_error"


def test_model_that_forgets_to_finalise_is_finalised(fast):
    events = read_all(stream_url(fast, texts=["a"], forget_to_finalise="true"))
    assert_whole(events)
    assert events[-1].json == {"finish_reason": "stop", "usage": None}


def test_more_entries_than_one_read_returns(fast):
    generation = fast.submit(texts=["x"], repeat=3000)
    wait_for(lambda: fast.show(generation)["state"] == "done")
    events = read_all(fast.events_url(generation))
    assert_whole(events)
    assert text_of(events) == "x" * 3000


def test_large_event_survives(fast):
    large = "x" * 200_000
    events = read_all(fast.events_url(fast.submit(texts=[large, "end"])))
    assert text_of(events) == large + "end"


def test_closed_client_is_noticed_and_stops_nothing(own_stack, gate):
    # Without the socket watcher only the second heartbeat would fail, which is later than this test waits.
    stack = own_stack(EVERSTREAM_HEARTBEAT_S="30").start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    stream = connect(stack.events_url(generation)).read(until=lambda seen: len(seen.events) == 2)
    assert stack.streams() == 1
    stream.close()
    wait_for(lambda: stack.streams() == 0)
    gate.open()
    wait_for(lambda: stack.show(generation)["text"] == "ab")


def test_head_neither_starts_nor_follows_a_generation(fast, gate):
    generation = fast.submit(texts=["a"], hold_before=1, gate=gate.path)
    started = fast.metric("generations_started_total")
    for path in ("/stream?texts=a", f"/generations/{generation}/events"):
        with closing(http.client.HTTPConnection("127.0.0.1", fast.port, timeout=30)) as connection:
            connection.request("HEAD", path)
            answer = connection.getresponse()
            assert answer.headers["Content-Type"].startswith(sse.MIMETYPE)
            assert answer.read() == b""
            # The connection is free for the next request, although the generation has not ended.
            connection.request("GET", "/healthz")
            assert json.loads(connection.getresponse().read())["status"] == "ok"
    assert fast.metric("generations_started_total") == started
    gate.open()


def test_plain_model_runs_one_at_a_time_and_reports_positions(plain, gate):
    first = plain.submit(count=3, hold_before=1, gate=gate.path)
    wait_for(lambda: plain.show(first)["state"] == "running")
    with connect(stream_url(plain, count=2)) as second, connect(stream_url(plain, count=2)) as third:
        second.read(until=lambda seen: len(seen.events) == 2)
        third.read(until=lambda seen: len(seen.events) == 2)
        assert plain.show(second.events[0].json["generation"])["state"] == "queued"
        gate.open()
        second.read(), third.read()
    assert next(event.json["position"] for event in second.events if event.type == "queued") == 1
    assert next(event.json["position"] for event in third.events if event.type == "queued") == 2
    for stream in (second, third):
        assert_whole(stream.events)
        assert text_of(stream.events) == "0 1 "


def test_queued_generation_can_be_stopped(plain, gate):
    first = plain.submit(count=3, hold_before=1, gate=gate.path)
    wait_for(lambda: plain.show(first)["state"] == "running")
    queued = plain.submit(count=2)
    with connect(plain.events_url(queued)) as stream:
        answer = requests.delete(f"{plain.url}/generations/{queued}", timeout=30)
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert stream.read().events[-1].type == "cancelled"
    gate.open()
    wait_for(lambda: plain.show(first)["state"] == "done")


def test_plain_model_can_be_stopped(plain, gate):
    first = plain.submit(count=3, hold_before=1, gate=gate.path)
    wait_for(lambda: plain.show(first)["text"] == "0 ")
    requests.delete(f"{plain.url}/generations/{first}", timeout=30)
    assert read_all(plain.events_url(first))[-1].type == "cancelled"
    after = plain.submit(count=2)
    gate.open()
    # The model asserts that it never runs twice at once.
    assert text_of(read_all(plain.events_url(after))) == "0 1 "


def test_stopped_plain_model_lets_the_next_generation_start(plain):
    """It has asked for an exception, so that it does not count on for nobody."""
    endless = plain.submit(count=2_000_000_000)
    wait_for(lambda: plain.show(endless)["state"] == "running")
    requests.delete(f"{plain.url}/generations/{endless}", timeout=30)
    assert text_of(read_all(plain.events_url(plain.submit(count=2)))) == "0 1 "
