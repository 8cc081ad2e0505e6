"""Valkey errors that retrying does not cure are reported at once, in the stream and in /readyz."""

import asyncio
from contextlib import closing, contextmanager

import pytest
import requests
import valkey
from msgspec import structs
from valkey.asyncio.connection import DefaultParser as AsyncParser
from valkey.connection import DefaultParser

from everstream.log.engine_log import EngineLog, until_answered
from everstream.log.keys import Keys
from everstream.log.retryable import UNAVAILABLE
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import wait_for

RETRYABLE = (
    "BUSY a script is running",
    "CLUSTERDOWN the cluster is down",
    "LOADING the dataset is being read",
    "MASTERDOWN the link with the primary is down",
    "MISCONF errors writing to the AOF file",
    "NOREPLICAS not enough good replicas",
    "OOM command not allowed",
    "READONLY this is a replica",
    "TRYAGAIN multiple keys during resharding",
    "ERR max number of clients reached",
)
NOT_RETRYABLE = (
    "CROSSSLOT keys in request don't hash to the same slot",
    "ERR user_script:3: attempt to index a nil value",
    "ERR invalid password",
    "MOVED 3999 127.0.0.1:6381",
    "NOAUTH authentication required",
    "NOPERM this user has no permissions",
    "WRONGPASS invalid username-password pair",
    "WRONGTYPE operation against a key holding the wrong kind of value",
)


@pytest.mark.parametrize("parser", [DefaultParser, AsyncParser])
def test_both_clients_share_one_list_of_retryable_errors(parser):
    assert [message for message in RETRYABLE if not isinstance(parser.parse_error(message), UNAVAILABLE)] == []
    assert [message for message in NOT_RETRYABLE if isinstance(parser.parse_error(message), UNAVAILABLE)] == []


@pytest.fixture
def stack(own_stack):
    return own_stack(WEB_CONCURRENCY="1").start()


@pytest.fixture
def client(stack):
    with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
        yield client


@pytest.fixture
def keys(stack):
    return Keys(stack.settings.namespace)


@contextmanager
def denied(client, command):
    """Revokes a command from the Valkey user that all processes share."""
    client.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", f"+{command}")


def held(stack, gate, **inputs):
    """A generation that has sent its first output and is held before the second."""
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path, **inputs)
    wait_for(lambda: stack.show(generation)["text"] == "a", what="the first output")
    return generation


@pytest.mark.parametrize("command", ["append", "publish"])
def test_log_that_refuses_entries_ends_generation_and_engine(stack, client, gate, command):
    with connect(stack.events_url(held(stack, gate))) as stream:
        with denied(client, command):
            gate.open()
            stream.read()
            assert stream.events[-1].type == "failed"
            assert stream.events[-1].json["code"] == "log_error"
            assert "no permissions" in stream.events[-1].json["message"]
            # A client that resumes with its id has seen it.
            assert (
                requests.get(f"{stack.url}/stream", {"last_event_id": stream.decoder.last_id}, timeout=30).status_code
                == 204
            )
            wait_for(lambda: stack.engines[0].popen.poll() is not None, what="the end of the engine")
            assert stack.engines[0].popen.returncode == 5
            assert "Traceback" not in stack.engines[0].output
            ready = requests.get(f"{stack.url}/readyz", timeout=30)
            assert (ready.status_code, ready.json()["waiting_for"]) == (503, "valkey")
            assert "no permissions" in ready.json()["message"]
            refused = requests.post(f"{stack.url}/generations", json={"texts": ["a"]}, timeout=30)
            assert (refused.status_code, refused.json()["error"]["code"]) == (500, "log_error")
        stack.start_engine()
        wait_for(lambda: stack.readiness()["ready"], what="a ready engine, once the log accepts entries again")
        assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


@pytest.mark.parametrize("command", ["subscribe", "xautoclaim", "xread", "bzpopmin", "evalsha"])
def test_engine_exits_if_valkey_denies_a_command(stack, client, command):
    stack.engines[0].stop()
    with denied(client, command):
        for _ in range(2):
            engine = stack.start_engine()
            wait_for(lambda engine=engine: engine.popen.poll() is not None, what="the end of the engine")
            assert engine.popen.returncode == 5
    engine = stack.start_engine()
    # Until it has reported, the engines that failed are all that is known, while the one that was killed seems ready.
    wait_for(lambda: state_of(stack, engine) == "ready", what="the last engine's report")
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


def state_of(stack, engine):
    states = {each["name"]: each["state"] for each in stack.readiness().get("engines", ())}
    return states.get(engine.name)


@pytest.mark.parametrize("command", ["hset", "zadd", "hincrby", "set"])
def test_failed_submit_leaves_nothing(stack, client, keys, command):
    request = {"texts": ["a"], "request_id": "0123456789abcdef"}
    with denied(client, command):
        answer = requests.post(f"{stack.url}/generations", json=request, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "log_error")
        assert client.keys(f"{keys.ns}gen:*") == client.keys(f"{keys.ns}req:*") == []
        assert client.xlen(keys.jobs) == 0
    if stack.engines[0].popen.poll() is not None:
        stack.start_engine()
    wait_for(lambda: requests.post(f"{stack.url}/generations", json=request, timeout=30).status_code == 201)
    assert client.hget(keys.counters, "generations_started") == b"1"


def test_foreign_status_and_job_are_ignored(stack, client, keys):
    client.set(keys.engine("foreign"), "no JSON")
    client.zadd(f"{keys.ns}engine_names", {"foreign": 9_999_999_999_999})
    client.xadd(keys.jobs, {"something": "else"})
    wait_for(lambda: client.xlen(keys.jobs) == 0, what="the end of the foreign job")
    assert stack.readiness()["ready"]
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"
    assert stack.engines[0].popen.poll() is None


def test_engine_exits_if_a_cancel_cannot_be_logged(stack, client, gate):
    generation = held(stack, gate)
    with connect(stack.events_url(generation)) as stream, denied(client, "append"):
        requests.delete(f"{stack.url}/generations/{generation}", timeout=30)
        assert stream.read().events[-1].json["code"] == "log_error"
        wait_for(lambda: stack.engines[0].popen.poll() == 5, what="the end of the engine")


def test_engine_that_may_not_claim_exits_and_fails_the_queue(own_stack, gate):
    stack = own_stack(WEB_CONCURRENCY="1", EVERSTREAM_MAX_RUNNING="1").start()
    running = held(stack, gate)
    waiting = stack.submit(texts=["c"])
    with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client, denied(client, "lpop"):
        gate.open()
        assert read_all(stack.events_url(waiting))[-1].json["code"] == "log_error"
        wait_for(lambda: stack.engines[0].popen.poll() == 5, what="the end of the engine")
        assert "refuses the engine's commands" in stack.engines[0].output
        assert stack.show(waiting)["state"] == "failed"
        assert_whole(read_all(stack.events_url(running)))


def test_unreadable_log_ends_the_stream(stack, client):
    generation = stack.submit(texts=["a"])
    read_all(stack.events_url(generation))
    with denied(client, "exists"):
        events = read_all(stack.events_url(generation))
        assert [event.type for event in events] == ["open", "failed"]
        assert events[-1].json["code"] == "log_error"
    assert_whole(read_all(stack.events_url(generation)))


def test_failed_lookup_is_not_reported_as_unknown(stack, client):
    generation = stack.submit(texts=["a"])
    with denied(client, "hmget"):
        assert stack.show(generation)["error"]["code"] == "log_error"


def test_web_process_reports_that_it_may_not_submit(stack, client):
    def submit():
        return requests.post(f"{stack.url}/generations", json={"texts": ["a"]}, timeout=30)

    assert stack.readiness()["ready"]
    with denied(client, "hset"):
        # Before any request runs into it.
        wait_for(lambda: "refuses probe: " in stack.readiness().get("message", ""))
        assert submit().json()["error"]["code"] == "log_error"
        assert "refuses submit: " in stack.readiness()["message"]
    wait_for(lambda: submit().status_code == 201)
    wait_for(lambda: stack.readiness()["ready"])


@pytest.mark.parametrize("kind", ["log", "generation"])
def test_foreign_key_affects_only_its_generation(stack, client, keys, gate, kind):
    foreign, other = held(stack, gate), held(stack, gate)
    client.set(getattr(keys, kind)(foreign), "something else")
    with connect(stack.events_url(other)) as stream:
        gate.open()
        assert_whole(stream.read().events)
    # Its readers are not kept waiting, and its job can't be claimed again.
    assert read_all(stack.events_url(foreign))[-1].type == "failed"
    wait_for(lambda: client.xlen(keys.jobs) == 0, what="the end of its job")
    assert stack.engines[0].popen.poll() is None
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


def test_wrong_password_is_not_retried(stack, client):
    client.execute_command("ACL", "SETUSER", "somebody", "on", ">secret", "~*", "&*", "+@all")
    url = f"unix://somebody:wrong@{stack.settings.valkey_socket}"

    async def main():
        engine_log = EngineLog(structs.replace(stack.settings, valkey_url=url), "consumer")
        try:
            await asyncio.wait_for(until_answered(lambda: engine_log.history("0" * 32)), 30)
        finally:
            await engine_log.close()

    with pytest.raises(valkey.exceptions.ResponseError, match="invalid username-password pair"):
        asyncio.run(main())
