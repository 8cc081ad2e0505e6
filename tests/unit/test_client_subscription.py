"""The Python client's state machine: each entry once and in order, over any connections; and when it is over."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.client.backoff import FIRST_S, Backoff
from everstream.client.errors import AnswerCancelled, AnswerFailed, GaveUp, InvalidStream, RequestRefused, Unavailable
from everstream.client.replies import Reply
from everstream.client.subscription import Subscription
from everstream.client.transcript import Transcript
from everstream.log.entries import Entry, encode_json
from everstream.web.event_encoder import EventEncoder

GENERATION = "0123456789abcdef" * 2
STREAM = Reply(200, {"content-type": "text/event-stream; charset=utf-8"}, b"")
ENCODER = EventEncoder(GENERATION, "model")
OPEN = ENCODER.start(50, is_new=True)
CUT = Unavailable("connection_lost", "cut")


def subscription(after=None, **options):
    return Subscription(GENERATION, after, Backoff(options.get("give_up_after_s"), lambda: 0.0), 1 << 20)


def token(n, text="a"):
    return ENCODER.entry(Entry(n, "", encode_json({"text": text})))


def done(n):
    return ENCODER.entry(Entry(n, "done", encode_json({"finish_reason": "stop", "usage": None})))


def event(kind, data):
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def connected(after=None, *chunks, **options):
    made = subscription(after, **options)
    assert made.opened(STREAM)
    for chunk in chunks:
        made.feed(chunk)
    return made


def numbers(made):
    return [each.n for each in made.events]


def test_whole_stream():
    made = connected(None, OPEN, token(1), token(2), done(3))
    assert [(each.type, each.n) for each in made.events] == [("open", 0), ("message", 1), ("message", 2), ("done", 3)]
    assert [each.text for each in made.events] == ["", "a", "a", ""]
    assert made.end == made.events[-1]
    assert made.end.data == {"finish_reason": "stop", "usage": None}
    made.raise_unless_done()


def test_repeats_are_dropped():
    made = connected(None, OPEN, token(1), token(1), token(2), token(1), OPEN, token(3))
    assert numbers(made) == [0, 1, 2, 3]


def test_gap_keeps_what_came_before():
    made = connected(None, OPEN, token(1))
    with pytest.raises(Unavailable) as raised:
        made.feed(token(2) + token(4) + token(5))
    assert raised.value.code == "gap"
    assert numbers(made) == [0, 1, 2]
    made.failed(raised.value, 0.0)
    assert made.headers()["Last-Event-ID"] == f"{GENERATION}.2"


@pytest.mark.parametrize(
    "wrong", [f"{'f' * 32}.1", f"{GENERATION}.x", f"{GENERATION}.01", f"{GENERATION}.1-0", "", "1"]
)
def test_id_of_something_else_is_no_entry(wrong):
    made = connected(None, OPEN)
    with pytest.raises(Unavailable):
        made.feed(f"id: {wrong}\ndata: {{}}\n\n".encode())
    assert numbers(made) == [0]


def test_events_that_are_not_in_the_log():
    """They have no number, although the standard gives them the last event's id."""
    chunks = event("queued", {"position": 2, "length": 5}) + event("engine", {"state": "loading"})
    made = connected(None, OPEN, chunks, token(1))
    assert [(each.type, each.id, each.n) for each in made.events][1:3] == [("queued", "", None), ("engine", "", None)]
    assert made.last == 1


def test_nothing_counts_after_the_end():
    made = connected(None, OPEN, done(1) + token(2))
    made.feed(token(2))
    assert numbers(made) == [0, 1]


def test_headers_name_the_last_entry():
    assert "Last-Event-ID" not in subscription().headers()
    assert subscription(after=0).headers()["Last-Event-ID"] == f"{GENERATION}.0"
    assert connected(None, OPEN, token(1)).headers()["Last-Event-ID"] == f"{GENERATION}.1"


@pytest.mark.parametrize("after", [-1, True, 1.0, "1"])
def test_wrong_numbers(after):
    with pytest.raises(ValueError, match="after"):
        subscription(after)


@pytest.mark.parametrize("generation", ["", "x" * 32, "../" + "0" * 29, "0" * 33, "0" * 31 + "\n", None])
def test_wrong_ids(generation):
    with pytest.raises(ValueError, match="32 hex digits"):
        Subscription(generation, None, Backoff(None), 1)


@pytest.mark.parametrize(
    ("ping", "silence_s"),
    [
        ({"interval_ms": 15000, "last": 3}, 30.0),
        ({"interval_ms": 1}, 0.5),
        ({"interval_ms": 1e300}, 3600.0),
        ({"interval_ms": 0}, None),
        ({"interval_ms": "1"}, None),
        ({}, None),
        ([], None),
    ],
)
def test_pings(ping, silence_s):
    made = connected(None, event("ping", ping))
    assert made.silence_s == silence_s
    assert not made.events


def test_silence_is_known_on_later_connections():
    made = connected(None, event("ping", {"interval_ms": 1000}))
    made.failed(CUT, 0.0)
    made.opened(STREAM)
    assert made.silence_s == 2.0


def test_failed_and_cancelled():
    made = connected(None, OPEN, ENCODER.entry(Entry(1, "failed", encode_json({"code": "c", "message": "m"}))))
    with pytest.raises(AnswerFailed) as failed:
        made.raise_unless_done()
    assert (failed.value.code, failed.value.message) == ("c", "m")
    made = connected(None, OPEN, ENCODER.entry(Entry(1, "cancelled", encode_json({"reason": "requested"}))))
    with pytest.raises(AnswerCancelled, match="requested") as cancelled:
        made.raise_unless_done()
    assert cancelled.value.code == "cancelled"


def test_end_that_is_not_in_the_log():
    data = b'data: {"code":"generation_expired","message":"m"}\n\n'
    made = connected(3, f"event: failed\nid: {GENERATION}.expired\n".encode() + data)
    assert (made.end.type, made.end.n) == ("failed", None)


@pytest.mark.parametrize("data", ["{", "[" * 100_000, "text", "\ufeff{}"])
def test_data_that_is_not_json(data):
    made = connected(None, OPEN)
    with pytest.raises(InvalidStream) as raised:
        made.feed(f"id: {GENERATION}.1\ndata: {data}\n\n".encode())
    assert raised.value.code == "invalid_event"
    assert numbers(made) == [0]


def test_status_204_after_the_end():
    made = subscription(after=7)
    assert not made.opened(Reply(204, {}, b""))
    made.settle({"state": "done", "finish_reason": "stop", "usage": None, "last": 7})
    assert made.end.data["finish_reason"] == "stop"
    assert not made.events


@pytest.mark.parametrize("snapshot", [{"state": "running", "last": 7}, {"state": "done", "last": 8}, {"state": "done"}])
def test_status_204_from_a_proxy(snapshot):
    made = subscription(after=7)
    with pytest.raises(Unavailable):
        made.settle(snapshot)
    assert made.end is None
    with pytest.raises(Unavailable):
        subscription().opened(Reply(204, {}, b""))


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (
            Reply(404, {}, b'{"error":{"code":"generation_expired","message":"m"}}'),
            RequestRefused,
            "generation_expired",
        ),
        (Reply(403, {}, b"<html>"), RequestRefused, "http_403"),
        (Reply(302, {"location": "https://x/"}, b""), RequestRefused, "redirected"),
        (Reply(200, {"content-type": "text/html"}, b"<html>"), Unavailable, "unexpected_response"),
        (Reply(200, {}, b""), Unavailable, "unexpected_response"),
        (Reply(502, {"content-type": "text/html"}, b"<html>"), Unavailable, "http_502"),
        (Reply(502, {"content-type": "text/event-stream"}, b""), Unavailable, "http_502"),
    ],
)
def test_responses_that_are_no_stream(reply, kind, code):
    with pytest.raises(kind) as raised:
        subscription().opened(reply)
    assert raised.value.code == code


def test_first_delay_is_that_of_retry_until_there_is_progress():
    made = connected(None, OPEN)
    made.failed(CUT, 0.0)
    assert made.wait_s(0.0) == 0.05
    assert made.wait_s(1.0) == 0.0
    made.opened(STREAM)
    # A ping comes on every connection, so it is no progress.
    made.feed(b"retry: 50\n\n" + event("ping", {"interval_ms": 1000}))
    made.failed(CUT, 0.0)
    assert made.wait_s(0.0) == FIRST_S
    made.opened(STREAM)
    made.feed(token(1))
    made.failed(CUT, 0.0)
    assert made.wait_s(0.0) == 0.05


def test_busy_server():
    made = subscription(give_up_after_s=0)
    made.opened(STREAM)
    with pytest.raises(Unavailable) as raised:
        made.feed(b"retry: 5000\n\n" + event("busy", {"code": "too_many_streams", "message": "m", "retry_ms": 5000}))
    assert raised.value.code == "too_many_streams"
    with pytest.raises(GaveUp, match="m") as gave_up:
        made.failed(raised.value, 0.0)
    assert gave_up.value.code == "too_many_streams"
    assert not made.events


def test_gives_up_without_progress():
    made = connected(None, OPEN, give_up_after_s=10)
    made.failed(CUT, 0.0)
    made.failed(CUT, 9.0)
    made.opened(STREAM)
    made.feed(token(1))
    made.failed(CUT, 12.0)
    with pytest.raises(GaveUp) as raised:
        made.failed(CUT, 22.0)
    assert raised.value.code == "connection_lost"
    assert raised.value.__cause__ is CUT


@given(
    st.lists(st.text(), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400), st.integers(1, 60), st.integers(0, 12))),
)
def test_each_entry_once_and_in_order(texts, connections):
    """Connections repeat some entries, skip one, and break after any byte."""
    entries = [b""] + [token(n, text) for n, text in enumerate(texts, 1)] + [done(len(texts) + 1)]
    made, seen, transcript = subscription(), [], Transcript(GENERATION)
    for repeated, length, size, skipped in [*connections, (0, 1 << 20, 1 << 20, len(entries))]:
        if made.end is not None:
            break
        first = max(made.last + 1 - repeated, 0)
        head = ENCODER.start(50, is_new=first == 0) + event("ping", {"interval_ms": 1})
        wire = head + b"".join(each for n, each in enumerate(entries) if n >= first and n != skipped)
        made.opened(STREAM)
        try:
            for at in range(0, min(length, len(wire)), size):
                made.feed(wire[at : min(at + size, length)])
        except Unavailable as error:
            assert error.code == "gap"
            made.failed(error, 0.0)
        while made.events:
            seen.append(made.events.popleft())
            transcript.add(seen[-1])
    assert [each.n for each in seen] == list(range(len(texts) + 2))
    result = transcript.result(made.end)
    assert (result.text, result.state, result.finish_reason) == ("".join(texts), "done", "stop")


def test_outputs_that_are_more_than_text():
    transcript = Transcript(GENERATION)
    made = connected(None, OPEN, f'id: {GENERATION}.1\ndata: {{"text":"a","x":1}}\n\n'.encode(), done(2))
    for each in made.events:
        transcript.add(each)
    assert transcript.result(made.end).outputs == ({"text": "a", "x": 1},)
