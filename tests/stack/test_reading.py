"""The read path when messages are lost, torn or foreign: a real worker, with the test as the engine."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import msgspec
import pytest
import requests
import valkey
from gevent.hub import Waiter

from everstream.errors import LogBroken, ModelUnavailable
from everstream.log.engine_log import EngineLog
from everstream.log.entries import encode_entry, encode_lines
from everstream.log.keys import Keys
from everstream.log.records import EngineStatus, engine_failure
from everstream.settings import load_settings
from everstream.web.direct_writer import DirectWriter, http_chunk
from everstream.web.event_encoder import EventEncoder
from everstream.web.follower import Follower
from everstream.web.open_streams import OpenStreams, StreamClient
from everstream.web.read_reports import ReadReports
from harness.batches import batch_at
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import wait_for, web_alone

DONE = encode_entry("done", {"finish_reason": "stop", "usage": None})


@pytest.fixture(scope="module", params=["30"])
def web(request, tmp_path_factory):
    """Valkey and one web worker. Its heartbeat is so long that silence hardly ever makes a stream read the log."""
    with web_alone(
        tmp_path_factory.mktemp("web"), EVERSTREAM_HEARTBEAT_S=request.param, EVERSTREAM_FLUSH_MS="40"
    ) as stack:
        yield stack


short_heartbeat = pytest.mark.parametrize("web", ["0.4"], indirect=True)
"""With this, silence soon makes a stream read the log."""


@pytest.fixture
def client(web):
    with closing(valkey.Valkey.from_url(web.settings.log_url)) as client:
        yield client


@pytest.fixture
def keys(web):
    return Keys(web.settings.namespace)


@pytest.fixture
def append(web, client, keys):
    """Append and publish, as an engine does."""

    async def append(generation, first, entries, final):
        engine_log = EngineLog(web.settings, "test")
        try:
            log = client.get(keys.log(generation)) or b""
            batch = batch_at(log, generation, first, [(entry, b"") for entry in entries], final)
            assert await engine_log.append([batch]) == set()
        finally:
            await engine_log.close()

    return lambda *arguments: asyncio.run(append(*arguments))


@pytest.fixture
def generation(web):
    return web.submit(texts=["what", "the", "test", "says"])


def token(text):
    return encode_entry("", {"text": text})


def until(count):
    """Read until `count` events with an id were seen, including `open` but not `queued`."""
    return lambda stream: sum(event.id != "" and event.type != "queued" for event in stream.events) >= count


def numbered(stream):
    return [event for event in stream.events if event.type != "queued"]


@short_heartbeat
def test_lost_last_message_is_recovered_after_silence(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        append(generation, 1, [token("a")], "")
        stream.read(until=until(2))
        # In the log, but never published: no later message reveals the gap.
        client.append(keys.log(generation), encode_lines(2, [(token("b"), b"")]))
        stream.read(until=until(3))
        append(generation, 3, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "ab"


def test_lost_message_is_recovered_at_the_gap(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        append(generation, 1, [token("a")], "")
        stream.read(until=until(2))
        client.append(keys.log(generation), encode_lines(2, [(token("b"), b"")]))
        append(generation, 3, [token("c"), DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "abc"


def test_unsent_bytes_are_kept_for_later():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        writer, sent = DirectWriter(near), b""
        for n in range(10_000):
            sent += http_chunk(b"%d" % n)
            if not writer.send(http_chunk(b"%d" % n)):
                break
        # The buffer is full, which does not mean that the client left.
        assert writer.has_unsent
        assert not DirectWriter(near).send(b"more")
        near.setblocking(True)
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(writer.send_rest)
            received = b""
            for _ in range(10_000):
                received += far.recv(65536)
                if len(received) == len(sent):
                    break
            rest.result()
        assert (received, writer.has_unsent) == (sent, False)


def live_reader(follower, writer):
    """A reader that is caught up and waits."""
    reader = follower.reader(EventEncoder("0" * 32), 1, "", StreamClient(writer=writer))
    follower.register(reader)
    reader.cursor.begin_read()
    reader.cursor.end_read([], to_the_end=True)
    reader.cursor.take()
    reader._waiter = Waiter()
    return reader


def test_closed_client_does_not_affect_others():
    follower, pairs = (
        Follower(None, load_settings({}), OpenStreams(load_settings({}))),
        [socket.socketpair() for _ in range(3)],
    )
    readers = [live_reader(follower, DirectWriter(near)) for near, _ in pairs]
    pairs[1][1].close()
    follower.dispatch([("0" * 32, 2, msgspec.Raw(b"[%b]" % token("a")))])
    assert [reader.left for reader in readers] == [False, True, False]
    for at in (0, 2):
        assert b'data: {"text":"a"}' in pairs[at][1].recv(1000)
    for near, far in pairs:
        near.close(), far.close()


def test_failed_report_is_counted_later():
    class UnavailableLog:
        def touch(self, seen, counted, **_):
            raise valkey.ConnectionError

    reports = ReadReports(UnavailableLog(), {}, OpenStreams(load_settings({})), 60)
    reports.count("streams", 2)
    reports.mark_read("a")
    with pytest.raises(valkey.ConnectionError):
        reports._report()
    assert (reports._counted["streams"], reports._seen) == (2, {"a"})


def test_unreadable_entry_ends_only_its_own_stream(web, client, keys, append, generation):
    torn = web.submit(texts=["other"])
    client.append(keys.log(torn), encode_lines(1, [(b"no JSON", b"")]))
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
def test_model_is_unavailable_only_if_every_engine_failed(states, failure):
    found = engine_failure([EngineStatus("name", state, "model", error="why") for state in states])
    assert (found and type(found)) == failure
    assert found is None or found.message == "why"


def test_engine_failures_keep_their_class():
    statuses = [EngineStatus("a", "failed", "model"), EngineStatus("b", "failed", "model", code=LogBroken.code)]
    assert isinstance(engine_failure(statuses), LogBroken)


def test_gaps_are_counted_when_a_stream_ends():
    follower = Follower(None, load_settings({}), OpenStreams(load_settings({})))
    reader = follower.reader(EventEncoder("0" * 32), 1, "", StreamClient())
    follower.register(reader)
    assert len(follower.streams) == 1
    reader.cursor.gaps = 2
    follower.unregister(reader)
    assert (len(follower.streams), follower._reports._counted["gaps_healed"]) == (0, 2)


@pytest.mark.parametrize("message", [b"", b"no JSON", b"[[1,2,3]]", b'[["generation",1,["half"'])
def test_foreign_messages_are_ignored(web, client, append, generation, message):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.publish(Keys(web.settings.namespace).live, message)
        append(generation, 1, [token("a")], "")
        append(generation, 2, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "a"


def test_cut_subscription_is_renewed(web, client, keys, append, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.client_kill_filter(_type="pubsub")
        append(generation, 1, [token("a")], "")
        append(generation, 2, [DONE], "done")
        assert_whole(numbered(stream.read()))
    assert text_of(stream.events) == "a"


def test_worker_without_readers_is_not_woken(web, client, keys, append, generation):
    """It ends its subscription, and subscribes again for the next reader."""

    def is_heard():
        client.publish(keys.live, '[["somebody else",1,[]]]')
        return client.pubsub_numsub(keys.live)[0][1] > 0

    wait_for(lambda: not is_heard(), what="the end of the subscription")
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        append(generation, 1, [token("a")], "")
        stream.read(until=until(2))
        append(generation, 2, [DONE], "done")
        assert_whole(numbered(stream.read()))


def test_first_reader_of_a_new_generation_reads_no_log(web, client, keys, append):
    known = web.submit(texts=["a"])
    with connect(web.events_url(known)) as first:
        first.read(until=until(1))
        append(known, 1, [token("a")], "")
        # The worker is subscribed, and has read what there was.
        first.read(until=until(2))
        read = client.info("commandstats")["cmdstat_getrange"]["calls"]
        with connect(f"{web.url}/stream?texts=a") as stream:
            stream.read(until=until(1))
            generation = stream.events[0].id.partition(".")[0]
            append(generation, 1, [token("a"), DONE], "done")
            assert_whole(numbered(stream.read()))
        assert client.info("commandstats")["cmdstat_getrange"]["calls"] == read


def test_pipelined_request_ends_no_stream(web, append, generation):
    """Readable bytes on a connection do not mean that the client left."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as connection:
        request = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
        events = request.format(f"/generations/{generation}/events")
        connection.sendall(events.encode())
        read_until(connection, b"event: open")
        connection.sendall(request.format("/healthz").encode())
        # The same worker answers, so it has polled all its connections since.
        assert requests.get(f"{web.url}/healthz", timeout=30).json()["streams"] == 1
        append(generation, 1, [token("a"), DONE], "done")
        assert b'data: {"text":"a"}' in read_until(connection, b"event: done")


def read_until(connection, words):
    received = b""
    for _ in range(1000):
        chunk = connection.recv(65536)
        received += chunk
        if words in received or not chunk:
            break
    assert words in received
    return received


@short_heartbeat
def test_expiry_during_a_stream_is_reported(web, client, keys, generation):
    with connect(web.events_url(generation)) as stream:
        stream.read(until=until(1))
        client.delete(keys.generation(generation), keys.log(generation))
        end = stream.read().events[-1]
    assert (end.type, end.json["code"]) == ("failed", "generation_expired")


@pytest.mark.parametrize(("given", "flush_ms"), [({}, 40), ({"flush_ms": 0}, 0), ({"flush_ms": 7}, 7)])
def test_flush_ms_defaults_to_the_setting(web, client, keys, given, flush_ms):
    generation = web.submit(texts=["a"], **given)
    assert json.loads(client.hget(keys.generation(generation), "job"))["flush_ms"] == flush_ms


async def claim_all(settings):
    engine = EngineLog(settings, "test")
    await engine.claim(1000)
    await engine.close()


def test_queued_reader_hears_when_claimed(web, client, keys, append):
    queue = [web.submit(texts=["a"]) for _ in range(2)]
    with connect(web.events_url(queue[1])) as stream:
        stream.read(until=lambda seen: "queued" in [event.type for event in seen.events])
        asyncio.run(claim_all(web.settings))
        stream.read(until=lambda seen: seen.events[-1].data == '{"position":0,"length":0}')
        append(queue[1], 1, [DONE], "done")
        assert_whole(numbered(stream.read()))
