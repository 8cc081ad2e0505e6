"""Flow control: readers that are slow, stalled or gone, and what is too much: each has its bound, and others go on."""

import re
import socket

import psutil
import pytest
import requests
import valkey

from everstream import log
from tests.sse_client import assert_whole, connect, read_all, text_of
from tests.stack import wait_for

EVENTS = {"Accept": "text/event-stream"}


def fill(stack, count, size):
    """Finished generations of `size` bytes each, oldest first."""
    generations = []
    for _ in range(count):
        generations.append(stack.submit(texts=["x" * 1000], repeat=size // 1000))
        assert_whole(read_all(stack.events_url(generations[-1])))
    return generations


# Who reads.


def test_what_nobody_reads_is_abandoned_and_what_somebody_reads_is_not(own_stack, gate):
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="10").start()
    held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    followed, looked_at = stack.submit(**held), stack.submit(**held)
    with connect(stack.events_url(followed)) as stream:
        unread = [stack.submit(**held) for _ in range(5)]

        def only_the_read_ones_run():
            assert stack.show(looked_at)["state"] in ("queued", "running")
            return stack.metric("generations_cancelled_total") == 5 and stack.running() == 2

        wait_for(only_the_read_ones_run)
        gate.open()
        assert_whole(stream.read().events)
    assert stack.show(looked_at)["state"] == "done"
    for generation in unread:
        assert read_all(stack.events_url(generation))[-1].json == {"reason": "abandoned"}


def test_what_nobody_reads_is_abandoned_in_the_queue_too(own_stack, gate):
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="1", EVERSTREAM_MAX_RUNNING="1").start()
    held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    with connect(stack.events_url(stack.submit(**held))) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        unread, later = stack.submit(**held), stack.submit(**held)
        client = valkey.Valkey.from_url(stack.settings.log_url)
        read_at = client.zscore(log.Keys(stack.settings.namespace).ns + "read", unread)
        wait_for(lambda: server_ms(client) - read_at > 1500, what="the time after which it is abandoned")
        with connect(stack.events_url(later)) as read_again:
            wait_for(lambda: client.zscore(log.Keys(stack.settings.namespace).ns + "read", later) > read_at + 1500)
            gate.open()
            stream.read()
            assert_whole(read_again.read().events)
        client.close()
    assert text_of(read_again.events) == "ab"
    assert [event.type for event in read_all(stack.events_url(unread))] == ["open", "cancelled"]


def server_ms(client):
    seconds, micros = client.time()
    return seconds * 1000 + micros / 1000


def test_a_stop_is_heeded_though_its_message_is_lost(fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: fast.show(generation)["text"] == "a")
    client = valkey.Valkey.from_url(fast.settings.log_url)
    client.client_kill_filter(_type="pubsub")
    assert requests.delete(f"{fast.url}/generations/{generation}", timeout=30).json()["state"] == "stopping"
    wait_for(lambda: fast.show(generation)["state"] == "cancelled")
    wait_for(lambda: fast.running() == 0)
    client.close()


def test_a_worker_has_so_many_streams_and_no_more(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="2", WEB_CONCURRENCY="1").start()
    generation = stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    url = stack.events_url(generation)
    # A request that is refused for what it says keeps no place.
    for _ in range(3):
        assert requests.get(f"{stack.url}/stream?other=b", timeout=30).status_code == 400
    first = connect(url).read(until=lambda seen: seen.events)
    with connect(url) as second:
        second.read(until=lambda seen: seen.events)
        for address in (url, f"{stack.url}/stream?texts=b"):
            refused = requests.get(address, timeout=30)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams")
            assert refused.headers["Retry-After"] == "5"
            told = requests.get(address, headers=EVENTS, timeout=30)
            assert told.status_code == 200
            assert re.fullmatch("retry: [0-9]{4,5}\n\n", told.text)
        assert requests.get(f"{stack.url}/healthz", timeout=30).json()["streams"] == 2
        # Nothing was started by those that were refused.
        assert stack.metric("generations_started_total") == 1
        wait_for(lambda: stack.metric("streams_refused_total") == 4)
        first.close()
        wait_for(lambda: is_admitted(url), what="the place of the one that left")
        gate.open()
        assert_whole(second.read().events)
    stack.assert_idle()


def is_admitted(url):
    with requests.get(url, timeout=30, stream=True) as answer:
        return answer.ok


# Who reads slowly.


def open_and_read_nothing(url):
    """A connection whose reader takes only what its small buffer holds."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, port = address.split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def test_a_reader_that_stalls_is_cut_and_can_come_back(own_stack):
    stack = own_stack(EVERSTREAM_SEND_TIMEOUT_S="3").start()
    generation = stack.submit(texts=["x" * 1000], repeat=3000)
    url = stack.events_url(generation)
    with open_and_read_nothing(url) as stalled:
        # It stops no other reader.
        assert_whole(read_all(url))
        wait_for(lambda: stack.metric("streams_stalled_total") == 1)
        assert stack.streams() == 0
        has, got = b"", b"x"
        stalled.settimeout(30)
        with pytest.raises(ConnectionError):
            while got:
                got = stalled.recv(65536)
                has += got
    seen = max(int(n) for n in re.findall(rb"\nid: [0-9a-f]{32}\.([0-9]+)\ndata: .*\n\n", has))
    assert 0 < seen < 3000
    rest = read_all(url, last_id=f"{generation}.{seen}")
    assert [int(event.id.partition(".")[2]) for event in rest] == list(range(seen + 1, 3002))


def test_tokens_go_on_where_the_kernel_took_no_more(fast, gate):
    """A reader that has all there is gets the next ones straight from who hears them; then it reads no more."""
    generation = fast.submit(texts=["x" * 200], repeat=5000, pause_ms=1, hold_before=2, gate=gate.path)
    with connect(fast.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        gate.open()
        wait_for(lambda: fast.show(generation)["state"] == "done")
        assert_whole(stream.read().events)
        assert text_of(stream.events) == "x" * 200 * 5000


def test_slow_readers_cost_bounded_memory_and_get_every_token(own_stack):
    stack = own_stack(WEB_CONCURRENCY="1").start()
    (worker,) = stack.workers()
    url = stack.events_url(stack.submit(texts=["x" * 1000], repeat=20_000))
    slow = [connect(url) for _ in range(20)]
    assert_whole(read_all(url))
    before = psutil.Process(worker).memory_info().rss
    more = [open_and_read_nothing(url) for _ in range(50)]
    wait_for(lambda: stack.streams() == 70)
    assert_whole(read_all(url))
    # The answer has 20 MB; README.md says less than 1 MiB for a reader, whatever it reads.
    assert psutil.Process(worker).memory_info().rss - before < 50 << 20
    for stream in slow[:3]:
        assert_whole(stream.read().events)
    for connection in (*slow, *more):
        connection.close()
    wait_for(lambda: stack.streams() == 0)


def test_half_a_body_is_not_waited_for_for_ever(own_stack):
    stack = own_stack(EVERSTREAM_BODY_TIMEOUT_S="0.5").start()
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(b"POST /generations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        connection.settimeout(30)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


# What is too much.


def test_the_log_drops_the_oldest_finished_generation_when_it_is_full(own_stack):
    stack = own_stack(EVERSTREAM_MAX_LOG_BYTES="300000").start()
    generations = fill(stack, 12, 50_000)
    wait_for(lambda: stack.metric("log_bytes") <= 300_000)
    assert stack.metric("generations_evicted_total") >= 6
    late = read_all(stack.events_url(generations[0]))
    assert (late[-1].type, late[-1].json["code"]) == ("failed", "generation_expired")
    assert_whole(read_all(stack.events_url(generations[-1])))
    client = valkey.Valkey.from_url(stack.settings.log_url)
    assert len(list(client.scan_iter(match="*gen:*"))) <= 6
    client.close()


def test_what_is_accounted_is_what_valkey_takes(own_stack):
    stack = own_stack().start()
    client = valkey.Valkey.from_url(stack.settings.log_url)
    before = client.info("memory")["used_memory"]
    generations = fill(stack, 20, 100_000) + [stack.submit(texts=["token"], repeat=1000) for _ in range(20)]
    for generation in generations:
        wait_for(lambda generation=generation: stack.show(generation)["state"] == "done")
    taken = client.info("memory")["used_memory"] - before
    assert 0.5 < stack.metric("log_bytes") / taken < 2
    for generation in generations:
        client.zadd(log.Keys(stack.settings.namespace).ns + "finished", {generation: 1})
    wait_for(lambda: stack.metric("log_bytes") == 0)
    client.close()


def test_a_log_full_of_running_generations_takes_no_more_and_sheds_the_largest(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_LOG_BYTES="400000").start()
    small = stack.submit(texts=["x" * 1000], repeat=20, hold_before=15, gate=gate.path)
    large = stack.submit(texts=["x" * 1000], repeat=1000, pause_ms=5, hold_before=300, gate=gate.path)
    wait_for(lambda: len(stack.show(large)["text"]) == 299_000)
    # An engine says what its entries take when it refreshes its leases.
    wait_for(lambda: stack.metric("log_bytes") > 314_000)
    refused = requests.post(f"{stack.url}/generations", json={"texts": ["x" * 1000] * 90}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_full")
    with connect(stack.events_url(large)) as over, connect(stack.events_url(small)) as under:
        # What runs may say more, and goes over the bound: then the largest has to end.
        gate.open()
        assert over.read().events[-1].json["code"] == "log_full"
        assert under.read().events[-1].type == "done"


def test_a_generation_may_say_so_much(own_stack):
    stack = own_stack(EVERSTREAM_MAX_GENERATION_BYTES="20000", EVERSTREAM_MAX_OUTPUT_BYTES="5000").start()
    events = read_all(stack.events_url(stack.submit(texts=["x" * 1000], repeat=1000)))
    assert_whole(events)
    assert events[-1].json["code"] == "output_too_large"
    assert 18_000 <= len(text_of(events)) <= 21_000
    events = read_all(stack.events_url(stack.submit(texts=["a", "x" * 6000])))
    assert (text_of(events), events[-1].json["code"]) == ("a", "model_error")
    assert "5000 are allowed" in events[-1].json["message"]


def test_finished_generations_expire(own_stack):
    stack = own_stack(EVERSTREAM_RETENTION_S="1").start()
    generation = stack.submit(texts=["a"])
    wait_for(lambda: stack.show(generation).get("error", {}).get("code") == "generation_expired")
    late = read_all(stack.events_url(generation), last_id=f"{generation}.1")
    assert (late[-1].type, late[-1].json["code"]) == ("failed", "generation_expired")
    (event,) = read_all(f"{stack.url}/stream", last_id=f"{generation}.1")
    assert event.json["code"] == "generation_expired"
    # Nothing of it is left, on the account either.
    wait_for(lambda: stack.metric("log_bytes") == 0)
    client = valkey.Valkey.from_url(stack.settings.log_url)
    assert not [key for key in client.scan_iter() if generation.encode() in key]
    client.close()


def test_counters(own_stack):
    stack = own_stack().start()
    assert stack.metric("streams_total") == 0
    generation = stack.submit(texts=["a", "b"])
    events = read_all(stack.events_url(generation))
    read_all(stack.events_url(generation), last_id=events[1].id)
    wait_for(lambda: (stack.metric("streams_total"), stack.metric("resumes_total")) == (2, 1))
    wait_for(lambda: stack.metric("engines") == 1)
    assert stack.metric("generations_started_total") == stack.metric("generations_done_total") == 1
    assert stack.metric("leases_taken_over_total") == stack.metric("entries_refused_total") == 0
    answer = requests.get(f"{stack.url}/metrics", timeout=30)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    missing = {name for name in (*log.COUNTERS, *log.GAUGES) if f"# HELP everstream_{name}" not in answer.text}
    assert missing == set()
