"""Models that run one request at a time, as public ones are written: nothing of one request gets into another, no
error stops the service, and nothing is lost without a word."""

import shutil
import time
from contextlib import ExitStack

import pytest
import requests
import valkey

from everstream.log.keys import Keys
from harness.sse_client import assert_whole, connect, read_all
from harness.stack import MODELS, running_stack, wait_for


@pytest.fixture(scope="module")
def threaded(tmp_path_factory):
    """A stack with the threaded model, whose engine every test leaves free and alive."""
    with running_stack(tmp_path_factory.mktemp("threaded"), app_dir=MODELS / "threaded", WEB_CONCURRENCY="1") as stack:
        yield stack


def outputs_of(events):
    return [event.json["text"] for event in events if event.type == "message"]


def words(word, *numbers):
    return [f"{word}-{n} " for n in numbers]


def read(stack, generation):
    events = read_all(stack.events_url(generation))
    assert_whole(events)
    return outputs_of(events), events[-1]


def stop(stack, generation):
    return requests.delete(f"{stack.url}/generations/{generation}", timeout=30)


def test_stopped_generation_leaves_nothing_to_the_next_one(threaded, gate):
    """A thread goes on filling the shared streamer after the stop; the next user must not read that."""
    alice = threaded.submit(word="alice", count=9, hold_before=4, gate=gate.path)
    with connect(threaded.events_url(alice)) as stream:
        stream.read(until=lambda seen: len(outputs_of(seen.events)) == 3)
        bob = threaded.submit(word="bob", count=3)
        stop(threaded, alice)
        # The reader of a stopped generation does not wait for the model.
        events = stream.read().events
    assert (outputs_of(events), events[-1].type) == (words("alice", 1, 2, 3), "cancelled")
    assert threaded.show(bob)["state"] == "queued"
    gate.open()
    assert read(threaded, bob)[0] == words("bob", 1, 2, 3)


def test_abandoned_generation_leaves_nothing_to_the_next_one(own_stack, gate):
    stack = own_stack(app_dir=MODELS / "threaded", EVERSTREAM_ABANDON_AFTER_S="1").start()
    alice = stack.submit(word="alice", count=9, hold_before=4, gate=gate.path)
    wait_for(lambda: stack.metric("generations_cancelled_total") == 1)
    with connect(f"{stack.url}/stream?word=bob&count=3") as bob:
        gate.open()
        assert outputs_of(bob.read().events) == words("bob", 1, 2, 3)
    assert stack.show(alice)["state"] == "cancelled"


def test_early_return_leaves_nothing_to_the_next_generation(threaded, gate):
    """`infer` finalises and returns while its thread still fills the streamer."""
    alice = threaded.submit(word="alice", count=9, hold_before=4, return_after=2, gate=gate.path)
    assert read(threaded, alice)[0] == words("alice", 1, 2)
    bob = threaded.submit(word="bob", count=3)
    wait_for(lambda: "draining" in threaded.readiness().get("message", ""), what="the engine to say that it waits")
    assert threaded.show(bob)["state"] == "queued"
    gate.open()
    # Her thread went on filling the shared streamer after her last output; that was dropped.
    assert read(threaded, bob)[0] == words("bob", 1, 2, 3)
    assert "dropped 8 items" in threaded.engines[0].output


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("leaky"), app_dir=MODELS / "leaky", WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.mark.parametrize("by", ["thread", "daemon", "pool", "default_executor", "task", "timer", "thread_pool"])
def test_no_kind_of_worker_leaves_anything_to_the_next_request(leaky, gate, by):
    """Each fills a queue that requests share, and which is held in another place."""
    # Some workers are reused: those of the second request exist already.
    assert len(read(leaky, leaky.submit(word="warm-up", by=by))[0]) == 5
    alice = leaky.submit(word="alice", by=by, gate=gate.path)
    assert read(leaky, alice)[0] == ["alice0 "]
    bob = leaky.submit(word="bob", by=by)
    wait_for(lambda: "draining" in leaky.readiness().get("message", ""), what="the engine to say that it waits")
    assert leaky.show(bob)["state"] == "queued"
    gate.open()
    assert read(leaky, bob)[0] == [f"bob{n} " for n in range(5)]


def test_job_that_cant_be_read_ends_alone(leaky):
    """An input of any JSON that is none got into the log as it was, and ended one engine after the other."""
    answer = requests.get(f"{leaky.url}/stream", params={"word": "a", "by": "thread", "settings": "[" + "a" * 5000})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "settings")
    client = valkey.Valkey.from_url(leaky.settings.log_url)
    keys = Keys(leaky.settings.namespace)
    generation = "f" * 32
    now_ms = int(time.time() * 1000)
    # Later than the jobs before it.
    job_id = f"{now_ms + 60_000}-0"
    job = {"state": "open", "model": "leaky", "job_id": job_id, "digest": "", "request_key": "", "job": "{"}
    client.hset(keys.generation(generation), mapping=job)
    client.zadd(f"{keys.ns}read", {generation: now_ms})
    client.xadd(keys.jobs, {"generation": generation}, id=job_id)
    wait_for(lambda: leaky.show(generation).get("state") == "failed")
    assert leaky.show(generation)["error"]["code"] == "internal_error"
    client.close()
    leaky.engines[0].assert_alive()


def test_engine_whose_interpreter_is_blocked_ends(own_stack):
    """A regular expression that backtracks without end holds the lock that all Python code needs."""
    stack = own_stack(app_dir=MODELS / "threaded", EVERSTREAM_INFER_STOP_TIMEOUT_S="3").start()
    stack.submit(word="word", count=1, act="hold_the_interpreter_lock")
    assert stack.engines[0].popen.wait(60) == 1
    assert "hold_the_interpreter_lock" in stack.engines[0].output


def test_error_beside_a_service_thread_of_the_model(own_stack):
    """It may go on working for the request, and fill what the next one reads."""
    stack = own_stack(app_dir=MODELS / "served_by_thread").start()
    texts, end = read(stack, stack.submit(word="alice", raise_after=2))
    assert (texts, end.type, end.json["code"]) == (words("alice", 0, 1), "failed", "model_error")
    assert stack.engines[0].popen.wait(60) == 6
    assert "threads of the model may still work for the request (worker)" in stack.engines[0].output
    stack.start_engine(EVERSTREAM_ENGINE_NAME="engine0")
    assert read(stack, stack.submit(word="bob"))[0] == words("bob", 0, 1, 2, 3, 4)


def test_infer_that_does_not_end_is_replaced(own_stack, gate):
    stack = own_stack(app_dir=MODELS / "threaded", EVERSTREAM_INFER_STOP_TIMEOUT_S="2").start()
    alice = stack.submit(word="alice", count=9, hold_before=4, gate=gate.path)
    wait_for(lambda: len(outputs_of_log(stack, alice)) == 3)
    bob = stack.submit(word="bob", count=3)
    stop(stack, alice)
    assert stack.engines[0].popen.wait(60) == 6
    reason = "infer has not returned 2 s after its generation ended"
    assert reason in stack.engines[0].output
    assert reason in stack.readiness()["message"]
    gate.open()
    stack.start_engine(EVERSTREAM_ENGINE_NAME="engine0")
    assert read(stack, bob)[0] == words("bob", 1, 2, 3)
    assert outputs_of_log(stack, alice) == words("alice", 1, 2, 3)


def outputs_of_log(stack, generation):
    with connect(stack.events_url(generation)) as stream:
        top = stack.show(generation)["last"]
        return outputs_of(stream.read(until=lambda seen: len(seen.events) > top).events)


def test_error_in_a_thread_fails_the_generation_and_replaces_the_process(own_stack):
    """The thread was to end the streamer, so `infer` waits for it forever."""
    stack = own_stack(app_dir=MODELS / "threaded", EVERSTREAM_INFER_STOP_TIMEOUT_S="2").start()
    texts, end = read(stack, stack.submit(word="alice", count=3, raise_before=3))
    assert texts == words("alice", 1, 2)
    assert (end.type, end.json["code"]) == ("failed", "model_error")
    assert "'generate' raised RuntimeError: CUDA out of memory" in end.json["message"]
    wait_for(lambda: not stack.readiness()["ready"], what="the engine to report that it can't serve")
    assert stack.engines[0].popen.wait(60) == 6
    stack.start_engine(EVERSTREAM_ENGINE_NAME="engine0")
    assert read(stack, stack.submit(word="bob", count=2))[0] == words("bob", 1, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("EVERSTREAM_INFER_IDLE_TIMEOUT_S", "the model sent nothing for 1.5 s"),
        ("EVERSTREAM_INFER_TIMEOUT_S", "the model took more than 1.5 s"),
    ],
)
def test_time_limits(own_stack, gate, setting, message):
    stack = own_stack(app_dir=MODELS / "threaded", **{setting: "1.5"}).start()
    texts, end = read(stack, stack.submit(word="alice", count=3, hold_before=3, gate=gate.path))
    assert texts == words("alice", 1, 2)
    assert (end.type, end.json["code"]) == ("failed", "infer_timeout")
    assert message in end.json["message"]
    gate.open()
    assert read(stack, stack.submit(word="bob", count=2))[0] == words("bob", 1, 2)


def act(stack, name, **inputs):
    return read(stack, stack.submit(word="word", count=3, act=name, **inputs))


def test_exit_in_infer_is_an_error_of_the_model(threaded):
    _, end = act(threaded, "exit")
    assert (end.type, end.json["code"]) == ("failed", "model_error")
    assert end.json["message"] == "the model raised SystemExit: told to exit"
    threaded.engines[0].assert_alive()


def test_dict_returned_beside_a_handler_is_sent(threaded):
    texts, end = act(threaded, "return_a_dict")
    assert (texts, end.type) == (["word"], "done")


def test_outputs_of_a_thread_that_outlives_infer(threaded, gate):
    generation = threaded.submit(word="", count=3, act="send_from_a_thread_that_outlives_infer", gate=gate.path)
    wait_for(lambda: threaded.show(generation)["state"] == "running")
    gate.open()
    texts, end = read(threaded, generation)
    assert (texts, end.type) == (["0 ", "1 ", "2 "], "done")


def test_thread_that_outlives_infer_and_sends_nothing(own_stack, gate):
    limits = {"EVERSTREAM_INFER_IDLE_TIMEOUT_S": "1", "EVERSTREAM_INFER_STOP_TIMEOUT_S": "1"}
    stack = own_stack(app_dir=MODELS / "threaded", **limits).start()
    _, end = act(stack, "send_from_a_thread_that_outlives_infer", gate=gate.path)
    assert (end.type, end.json["code"]) == ("failed", "infer_timeout")
    assert stack.engines[0].popen.wait(60) == 6
    assert "threads that infer started still run ('sender')" in stack.engines[0].output


def test_number_that_json_lacks_fails_the_generation_even_if_the_model_goes_on(threaded):
    texts, end = act(threaded, "send_nan")
    assert texts == [""]
    assert (end.type, end.json["code"]) == ("failed", "model_error")
    assert "'score' holds nan" in end.json["message"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("change_a_key", "the first output had the keys 'text', this one has 'word'"),
        ("change_a_type", "'text' was a string in the first output, and is an array now"),
    ],
)
def test_output_schema_is_the_same_in_all_outputs(threaded, name, change):
    texts, end = act(threaded, name)
    assert texts == ["a"]
    assert (end.type, end.json["code"]) == ("failed", "output_schema_changed")
    assert change in end.json["message"]


def test_files_beside_the_model_are_found(threaded):
    assert act(threaded, "read_a_file_beside_this_one")[0] == ["beside\n"]


def test_model_that_starts_over_and_says_something_else_is_not_resumed(own_stack, gate):
    """Two different samples must not be joined."""
    stack = own_stack(app_dir=MODELS / "threaded").start()
    generation = stack.submit(word="", count=2, act="say_the_time", gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(outputs_of(seen.events)) == 2)
        stack.engines[0].kill()
        stack.start_engine()
        events = stream.read().events
        gate.open()
    assert_whole(events)
    assert len(outputs_of(events)) == 2
    assert (events[-1].type, events[-1].json["code"]) == ("failed", "not_resumable")


def test_model_that_is_not_resumable_is_not_run_again(own_stack, gate, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "threaded", folder)
    with (folder / "input_schema.py").open("a") as schema:
        schema.write("RESUMABLE = False\n")
    stack = own_stack(app_dir=folder).start()
    alice = stack.submit(word="alice", count=3, hold_before=3, gate=gate.path)
    queued = stack.submit(word="bob", count=2)
    wait_for(lambda: len(outputs_of_log(stack, alice)) == 2)
    stack.engines[0].kill()
    stack.start_engine()
    texts, end = read(stack, alice)
    assert texts == words("alice", 1, 2)
    assert (end.type, end.json["code"]) == ("failed", "not_resumable")
    assert "RESUMABLE = False" in end.json["message"]
    # One that had not begun is simply run.
    assert read(stack, queued)[0] == words("bob", 1, 2)


def test_eight_clients_queue_in_order(threaded, gate):
    first = threaded.submit(word="first", count=2, hold_before=1, gate=gate.path)
    wait_for(lambda: threaded.show(first)["state"] == "running")
    waiting = [threaded.submit(word=f"{number}", count=1) for number in range(8)]
    with ExitStack() as streams:
        readers = [streams.enter_context(connect(threaded.events_url(each))) for each in waiting]
        for place, reader in enumerate(readers, 1):
            reader.read(until=lambda seen: [e for e in seen.events if e.type == "queued"])
            assert [e.json["position"] for e in reader.events if e.type == "queued"][-1] == place
        gate.open()
        for number, reader in enumerate(readers):
            assert outputs_of(reader.read().events) == words(number, 1)
