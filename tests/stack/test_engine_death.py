"""An engine crash is only a pause: another engine takes over and continues after the delivered output."""

import signal

import pytest
import valkey

from everstream.log.keys import GROUP, Keys
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import MODELS, wait_for

MAX_CRASHES = 5


@pytest.mark.parametrize("model", ["scripted", "plain"])
def test_engine_killed_mid_stream_and_restarted(own_stack, gate, model):
    stack = own_stack(app_dir=MODELS / model).start()
    inputs = {"texts": [f"{n} " for n in range(6)]} if model == "scripted" else {"count": 6}
    generation = stack.submit(**inputs, hold_before=4, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) >= 4)
        stack.engines[0].kill()
        gate.open()
        stack.start_engine()
        events = stream.read().events
    assert_whole(events)
    assert text_of(events) == "0 1 2 3 4 5 "
    assert [event.json for event in events if event.type == "resumed"] == [{"attempt": 2}]
    assert stack.show(generation)["text"] == "0 1 2 3 4 5 "


def test_other_engine_takes_over(own_stack, gate):
    stack = own_stack().start(engines=2)
    generations = [stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path) for _ in range(4)]
    wait_for(lambda: all(stack.show(generation)["text"] == "a" for generation in generations))
    stack.engines[0].kill()
    gate.open()
    for generation in generations:
        events = read_all(stack.events_url(generation))
        assert_whole(events)
        assert text_of(events) == "ab"


@pytest.mark.parametrize("appends", [True, False])
def test_zombie_that_wakes_is_fenced_off(own_stack, gate, appends):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: stack.show(generation)["text"] == "a")
    stack.engines[0].kill(signal.SIGSTOP)
    stack.start_engine()
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: "resumed" in [event.type for event in seen.events])
        # Both continue from here. The zombie's append is refused, because its entry number is taken.
        stack.engines[0].kill(signal.SIGCONT)
        if not appends:
            # A zombie with nothing to append finds out when it refreshes its leases.
            wait_for(lambda: "its lease went to another engine" in stack.engines[0].output)
        gate.open()
        events = stream.read().events
    assert_whole(events)
    assert text_of(events) == "ab"
    wait_for(lambda: "another engine has it" in stack.engines[0].output or "lease went" in stack.engines[0].output)
    # It keeps serving.
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


@pytest.mark.parametrize("kill_before", [1, 2])
def test_generation_that_crashes_three_engines_fails(own_stack, kill_before):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], kill_before=kill_before)

    def is_over():
        return stack.show(generation)["state"] == "failed"

    with connect(stack.events_url(generation)) as stream:
        for _ in range(MAX_CRASHES + 1):
            if is_over():
                break
            engine = stack.engines[-1]
            wait_for(lambda engine=engine: engine.popen.poll() is not None or is_over(), what="a crash or the end")
            if not is_over():
                stack.start_engine()
        else:
            raise AssertionError(f"it is still retried after {MAX_CRASHES} crashes")
        events = stream.read().events
    assert_whole(events)
    assert events[-1].json["code"] == "engine_crashed"
    # The first output may reach the log in either of the first two attempts; three crashes follow it.
    assert len(stack.engines) - 1 in ([3] if kill_before == 1 else range(3, MAX_CRASHES + 1))
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


def test_bound_on_a_generation_includes_output_before_a_crash(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_GENERATION_BYTES="20000").start()
    generation = stack.submit(texts=["x" * 1000], repeat=100, hold_before=15, gate=gate.path)
    wait_for(lambda: len(stack.show(generation)["text"]) == 14_000)
    stack.engines[0].kill()
    gate.open()
    stack.start_engine()
    events = read_all(stack.events_url(generation))
    assert_whole(events)
    assert events[-1].json["code"] == "output_too_large"
    assert len(text_of(events)) <= 21_000


def test_engine_at_capacity_after_a_takeover_claims_nothing(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_RUNNING="1").start()
    held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    first = stack.submit(**held)
    wait_for(lambda: stack.show(first)["text"] == "a")
    waiting = stack.submit(**held)
    stack.engines[0].kill()
    keys, client = Keys(stack.settings.namespace), valkey.Valkey.from_url(stack.settings.log_url)
    (pending,) = client.xpending_range(keys.jobs, GROUP, "-", "+", 10)
    # Its lease has expired before any engine looks for expired ones.
    client.xclaim(keys.jobs, GROUP, "nobody", 0, [pending["message_id"]], idle=600_000, justid=True)
    client.close()
    stack.start_engine()
    wait_for(lambda: "taken over" in stack.engines[1].output)
    assert stack.show(waiting)["state"] == "queued"
    gate.open()
    for generation in (first, waiting):
        assert text_of(read_all(stack.events_url(generation))) == "ab"
    assert stack.engines[1].popen.poll() is None


def test_engine_exits_when_its_model_died(own_stack):
    stack = own_stack().start()
    stack.submit(texts=["a", "b"], die_before=2)
    wait_for(lambda: stack.engines[0].popen.poll() is not None, what="the end of the engine")
    assert stack.engines[0].popen.returncode == 4
    assert "the model died: told to die" in stack.engines[0].output


def test_engine_killed_between_claim_and_first_entry(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    wait_for(lambda: stack.show(generation)["state"] == "running")
    stack.engines[0].kill()
    gate.open()
    stack.start_engine()
    events = read_all(stack.events_url(generation))
    assert_whole(events)
    assert [event.type for event in events] == ["open", "resumed", "message", "done"]


def test_valkey_killed_and_restarted(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        # Acknowledged entries have been written; fsync of the last second matters only in a power cut.
        stack.valkey.kill()
        gate.open()
        stream.read(until=lambda seen: "heartbeat" in seen.decoder.comments)
        assert stack.readiness()["waiting_for"] == "valkey"
        stack.start_valkey()
        events = stream.read().events
    assert_whole(events)
    assert text_of(events) == "abc"
