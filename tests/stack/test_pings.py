"""What clients that watch their connection get: pings, news about the engines, several generations in one stream."""

import signal

import pytest
import requests

from harness.sse_client import assert_whole, connect, text_of
from harness.stack import wait_for

UNNUMBERED = ("ping", "queued", "engine")


def pinged(stack, generation):
    return f"{stack.events_url(generation)}?ping=true"


def together(stack, *places):
    return f"{stack.url}/events?" + "&".join(f"generation={place}" for place in places)


def numbered(events):
    return [event for event in events if event.type not in UNNUMBERED]


def of_generation(events, generation):
    return [event for event in numbered(events) if event.id.startswith(generation)]


def types(stream):
    return [event.type for event in stream.events]


def test_pings_show_that_the_connection_lives(fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(pinged(fast, generation)) as stream:
        stream.read(until=lambda seen: types(seen).count("ping") == 3)
        first, *others = (event.json for event in stream.events if event.type == "ping")
        assert set(first) == {"generation", "interval_ms", "retry_ms", "last", "worker"}
        assert first["worker"] == fast.worker_of(stream.local_port)
        assert (first["generation"], first["retry_ms"]) == (generation, stream.decoder.retry_ms)
        assert others == [{"generation": generation, "interval_ms": 1000}] * 2
        gate.open()
        assert_whole(numbered(stream.read().events))
        # `ping` replaces the comment.
        assert stream.decoder.comments == ["everstream"]


def test_first_ping_says_where_the_log_ends(fast):
    generation = fast.submit(texts=["a", "b"])
    wait_for(lambda: fast.show(generation)["state"] == "done")
    with connect(pinged(fast, generation), last_id=f"{generation}.1") as stream:
        events = stream.read().events
    assert (events[0].type, events[0].json["last"]) == ("ping", 3)
    assert [event.id for event in events[1:]] == [f"{generation}.2", f"{generation}.3"]


def test_queue_and_engine_are_shown(own_stack):
    stack = own_stack()
    stack.start_valkey()
    stack.start_web()
    stack.submit(texts=["before"])
    generation = stack.submit(texts=["a"])
    with connect(pinged(stack, generation)) as stream:
        stream.read(until=lambda seen: {"queued", "engine"} <= set(types(seen)))
        queued = next(event for event in stream.events if event.type == "queued")
        assert queued.json == {"generation": generation, "position": 2, "length": 2}
        engine = next(event for event in stream.events if event.type == "engine")
        message = "no engine process is reporting"
        assert engine.json == {"generation": generation, "state": "loading", "message": message}
        stack.start_engine()
        assert_whole(numbered(stream.read().events))


def test_claimed_generation_is_not_queued(fast, gate):
    """A client that reconnects may last have heard that it was."""
    generation = fast.submit(texts=["a"], hold_before=1, gate=gate.path)
    wait_for(lambda: fast.show(generation)["state"] == "running")
    with connect(pinged(fast, generation), last_id=f"{generation}.0") as stream:
        stream.read(until=lambda seen: {"queued", "engine"} <= set(types(seen)))
        assert [event.json["position"] for event in stream.events if event.type == "queued"] == [0]
        assert [event.json["state"] for event in stream.events if event.type == "engine"] == ["ready"]
        gate.open()
        stream.read()


def test_engine_that_restarts_is_shown(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(pinged(stack, generation)) as stream:
        stream.read(until=lambda seen: {"message", "engine"} <= set(types(seen)))
        stack.engines[0].kill(signal.SIGKILL)
        stream.read(until=lambda seen: types(seen).count("engine") == 2)
        stack.start_engine()
        stream.read(until=lambda seen: [event.json["state"] for event in seen.events if event.type == "engine"][2:])
        gate.open()
        stream.read()
    assert [event.json["state"] for event in stream.events if event.type == "engine"] == ["ready", "loading", "ready"]
    assert text_of(stream.events) == "ab"


def test_draining_worker_says_when_to_return(own_stack, gate):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(pinged(stack, generation)) as stream:
        stream.read(until=lambda seen: "message" in types(seen))
        stack.web.popen.terminate()
        stream.read()
    assert stream.events[-1].type == "ping"
    assert stream.events[-1].json["retry_ms"] == stream.decoder.retry_ms >= 50
    gate.open()


def test_several_generations_in_one_stream(fast, gate):
    texts = [["a", "b"], ["c"], ["d", "e", "f"]]
    generations = [fast.submit(texts=each, hold_before=len(each), gate=gate.path) for each in texts]
    with connect(together(fast, *generations)) as stream:
        stream.read(until=lambda seen: types(seen).count("message") == 3)
        gate.open()
        stream.read()
    for generation, expected in zip(generations, texts, strict=True):
        events = of_generation(stream.events, generation)
        assert_whole(events)
        assert text_of(events) == "".join(expected)
    assert {event.json["generation"] for event in stream.events if event.type == "ping"} == set(generations)


def test_several_are_resumed_each_after_its_own_event(fast):
    generations = [fast.submit(texts=["a", "b"]) for _ in range(2)]
    for generation in generations:
        wait_for(lambda known=generation: fast.show(known)["state"] == "done")
    first, second = generations
    for m in range(4):
        for n in range(4):
            with connect(together(fast, f"{first}.{m}", f"{second}.{n}")) as stream:
                if m == n == 3:
                    assert stream.status == 204
                    continue
                ids = [event.id for event in numbered(stream.read().events)]
            assert sorted(ids) == sorted(f"{g}.{i}" for g, k in ((first, m), (second, n)) for i in range(k + 1, 4))
    # A browser's EventSource reconnects with the same URL, and the last id of one of them.
    with connect(together(fast, *generations), last_id=f"{first}.2") as stream:
        ids = [event.id for event in numbered(stream.read().events)]
    assert sorted(ids) == sorted([f"{first}.3"] + [f"{second}.{n}" for n in range(4)])


def test_large_events_are_not_mixed(fast):
    texts = [[letter * 100_000] * 3 for letter in "abc"]
    generations = [fast.submit(texts=each) for each in texts]
    with connect(together(fast, *generations)) as stream:
        stream.read()
    for generation, expected in zip(generations, texts, strict=True):
        events = of_generation(stream.events, generation)
        assert_whole(events)
        assert [event.json["text"] for event in events if event.type == "message"] == expected


def test_unknown_and_lost_generations_end_alone(fast):
    known, gone = fast.submit(texts=["a"]), "0" * 32
    wait_for(lambda: fast.show(known)["state"] == "done")
    other = fast.submit(texts=["b"])
    with connect(together(fast, f"{known}.9", gone, other)) as stream:
        stream.read()
    failed = {event.id: event.json["code"] for event in stream.events if event.type == "failed"}
    assert failed == {f"{known}.expired": "entries_lost", f"{gone}.expired": "generation_expired"}
    assert_whole(of_generation(stream.events, other))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "generation must be given 1 to 8 times"),
        ("&".join(f"generation={n:032x}" for n in range(9)), "generation must be given 1 to 8 times"),
        ("generation=abc", "generation must be an event id"),
        ("generation=" + "0" * 32 + ".x", "generation must be an event id"),
    ],
)
def test_bad_lists_are_refused(fast, query, message):
    answer = requests.get(f"{fast.url}/events?{query}", timeout=30)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == "generation"


@pytest.mark.parametrize("query", ["ping=yes", "ping=true&format=openai-chat"])
def test_bad_pings_are_refused(fast, query):
    answer = requests.get(f"{fast.events_url('0' * 32)}?{query}", timeout=30)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "ping")


def test_each_generation_takes_a_slot(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="2", WEB_CONCURRENCY="1").start()
    generations = [stack.submit(texts=["a"], hold_before=1, gate=gate.path) for _ in range(3)]
    with connect(together(stack, *generations)) as stream:
        (busy,) = stream.read().events
        assert (busy.type, busy.json["code"]) == ("busy", "too_many_streams")
    refused = requests.get(together(stack, *generations), timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams")
    with connect(together(stack, *generations[:2])) as stream:
        stream.read(until=lambda seen: types(seen).count("open") == 2)
        assert stack.streams() == 2
    # Its slots are free once it has been closed.
    wait_for(lambda: requests.get(together(stack, generations[2]), stream=True, timeout=30).ok)
    gate.open()
    stack.assert_idle()
