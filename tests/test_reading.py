"""The one read path where messages are lost, torn or strange: a real worker, and an engine of the test's own."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
import valkey
from gevent.hub import Waiter

from everstream import log, sse
from everstream.engine_log import Batch, EngineLog
from everstream.errors import LogBroken, ModelUnavailable
from everstream.follower import Follower, Live, engine_failure
from everstream.outlet import Outlet, chunk
from everstream.settings import load_settings
from tests.sse_client import assert_whole, connect, read_all, text_of
from tests.stack import web_alone

DONE = log.encode_entry("done", {"finish_reason": "stop", "usage": None})


@pytest.fixture(scope="module", params=["30"])
def web(request, tmp_path_factory):
    """Valkey and one web worker whose streams are hardly ever silent for so long that they look into the log."""
    with web_alone(
        tmp_path_factory.mktemp("web"), EVERSTREAM_HEARTBEAT_S=request.param, EVERSTREAM_FLUSH_MS="40"
    ) as stack:
        yield stack


beating = pytest.mark.parametrize("web", ["0.4"], indirect=True)
"""The other way round."""


@pytest.fixture
def client(web):
    with closing(valkey.Valkey.from_url(web.settings.log_url)) as client:
        yield client


@pytest.fixture
def keys(web):
    return log.Keys(web.settings.namespace)


@pytest.fixture
def append(web):
    """Append as an engine does, and have it published."""

    async def append(generation, first, entries, final):
        engine_log = EngineLog(web.settings, "test")
        try:
            batch = Batch(generation, first, [(entry, b"") for entry in entries], final)
            assert await engine_log.append([batch]) == set()
        finally:
            await engine_log.close()

    return lambda *arguments: asyncio.run(append(*arguments))


@pytest.fixture
def generation(web):
    return web.submit(texts=["what", "the", "test", "says"])


def token(text):
    return log.encode_entry("", {"text": text})


def until(count):
    """Read until so many entries were seen, the start included; a place in the queue is none."""
    return lambda stream: sum(event.id != "" and event.type != "queued" for event in stream.events) >= count


def numbered(stream):
    return [event for event in stream.events if event.type != "queued"]


@beating
def test_the_last_message_is_lost_and_silence_heals_it(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        append(generation, 1, [token("a")], "")
        stream.read(until=until(2))
        # In the log, and never said: nothing follows that would show the gap.
        client.xadd(keys.log(generation), {"entry": token("b")}, id="2-0")
        stream.read(until=until(3))
        append(generation, 3, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "ab"


def test_a_message_is_lost_and_the_gap_is_healed(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        append(generation, 1, [token("a")], "")
        stream.read(until=until(2))
        client.xadd(keys.log(generation), {"entry": token("b")}, id="2-0")
        append(generation, 3, [token("c"), DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "abc"


def test_what_the_kernel_does_not_take_is_kept_for_later():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        outlet, sent = Outlet(near), b""
        for n in range(10_000):
            sent += chunk(b"%d" % n)
            if not outlet.send(chunk(b"%d" % n)):
                break
        # Nothing at all is taken now, which is no client that left.
        assert outlet.has_unsent
        assert not Outlet(near).send(b"more")
        near.setblocking(True)
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(outlet.send_rest)
            has = b""
            for _ in range(10_000):
                has += far.recv(65536)
                if len(has) == len(sent):
                    break
            rest.result()
        assert (has, outlet.has_unsent) == (sent, False)


def hearing(follower, outlet):
    """A reader that has all there is and waits."""
    reader = follower.reader(sse.Events("0" * 32), 1, outlet)
    follower.register(reader)
    reader.cursor.begin_read()
    reader.cursor.end_read([], to_the_end=True)
    reader.cursor.take()
    reader.waiter = Waiter()
    return reader


def test_a_client_that_left_is_no_trouble_to_others():
    follower, pairs = Follower(None, load_settings({})), [socket.socketpair() for _ in range(3)]
    readers = [hearing(follower, Outlet(near)) for near, _ in pairs]
    pairs[1][1].close()
    follower._dispatch(set(readers), Live(2, [token("a")]))
    assert [reader.left for reader in readers] == [False, True, False]
    for at in (0, 2):
        assert b'data: {"text":"a"}' in pairs[at][1].recv(1000)
    for near, far in pairs:
        near.close(), far.close()


def test_what_could_not_be_counted_is_counted_later():
    class Away:
        def touch(self, seen, counted):
            raise valkey.ConnectionError

    follower = Follower(Away(), load_settings({}))
    follower.counted["streams"] = 2
    follower.saw("a")
    with pytest.raises(valkey.ConnectionError):
        follower._tell_seen()
    assert (follower.counted["streams"], follower._seen) == (2, {"a"})


def test_an_entry_that_can_not_be_read_ends_its_own_stream_alone(web, client, keys, append, generation):
    torn = web.submit(texts=["other"])
    client.xadd(keys.log(torn), {"entry": "no JSON"}, id="1-0")
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        for _ in range(3):
            assert read_all(web.events_url(torn))[-1].json["code"] == "log_error"
        append(generation, 1, [DONE], "done")
        assert_whole(stream.read().events)


@pytest.mark.parametrize(
    ("states", "failure"),
    [
        ([], None),
        (["ready"], None),
        (["failed", "ready"], None),
        (["failed", "loading"], None),
        (["failed", "failed"], ModelUnavailable),
    ],
)
def test_a_model_is_given_up_only_when_no_engine_is_left_that_may_load_it(states, failure):
    found = engine_failure([log.EngineStatus("name", state, "model", error="why") for state in states])
    assert (found and type(found)) == failure
    assert found is None or found.message == "why"


def test_what_an_engine_failed_with_is_told_apart():
    statuses = [log.EngineStatus("a", "failed", "model"), log.EngineStatus("b", "failed", "model", code=LogBroken.code)]
    assert isinstance(engine_failure(statuses), LogBroken)


def test_gaps_are_counted_when_a_stream_ends():
    follower = Follower(None, load_settings({}))
    reader = follower.reader(sse.Events("0" * 32), 1, None)
    follower.register(reader)
    assert follower.reader_count == 1
    reader.cursor.gaps = 2
    follower.unregister(reader)
    assert (follower.reader_count, follower.counted["gaps_healed"]) == (0, 2)


@pytest.mark.parametrize("said", [b"", b"no JSON", b"[[1,2,3]]", b'[["generation",1,["half"'])
def test_what_is_no_message_of_ours_stops_no_reader(web, client, append, generation, said):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.publish(log.Keys(web.settings.namespace).live, said)
        append(generation, 1, [token("a")], "")
        append(generation, 2, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "a"


def test_a_subscription_that_is_cut_is_made_again(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.client_kill_filter(_type="pubsub")
        append(generation, 1, [token("a")], "")
        append(generation, 2, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "a"


def test_a_pipelined_request_ends_no_stream(web, append, generation):
    """Bytes to read on its connection are no client that left."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        request = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
        events = request.format(f"/generations/{generation}/events")
        connection.sendall(events.encode())
        read_until(connection, b"event: open")
        connection.sendall(request.format("/healthz").encode())
        # Answered by the same worker: so it has looked at all its connections since.
        assert requests.get(f"{web.url}/healthz", timeout=30).json()["streams"] == 1
        append(generation, 1, [token("a"), DONE], "done")
        assert b'data: {"text":"a"}' in read_until(connection, b"event: done")


def read_until(connection, words):
    has = b""
    for _ in range(1000):
        chunk = connection.recv(65536)
        has += chunk
        if words in has or not chunk:
            break
    assert words in has
    return has


@beating
def test_a_generation_that_expires_under_its_reader_is_said(web, client, keys, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.delete(keys.generation(generation), keys.log(generation))
        end = stream.read().events[-1]
    assert (end.type, end.json["code"]) == ("failed", "generation_expired")


@pytest.mark.parametrize(("given", "flush_ms"), [({}, 40), ({"flush_ms": 0}, 0), ({"flush_ms": 7}, 7)])
def test_pacing_is_as_the_settings_say_unless_the_request_does(web, client, keys, given, flush_ms):
    generation = web.submit(texts=["a"], **given)
    assert json.loads(client.hget(keys.generation(generation), "job"))["flush_ms"] == flush_ms


def test_who_was_told_a_place_is_told_that_an_engine_has_it(web, client, keys, append):
    queue = [web.submit(texts=["a"]) for _ in range(2)]
    with connect(web.events_url(queue[1])) as stream:
        stream.read(until=lambda seen: "queued" in [event.type for event in seen.events])
        client.xreadgroup(log.GROUP, "test", {keys.jobs: ">"}, count=1000)
        stream.read(until=lambda seen: seen.events[-1].data == '{"position":0}')
        append(queue[1], 1, [DONE], "done")
        assert_whole(numbered(stream.read()))
