"""Flow control: slow, stalled or closed readers, and too much output. Each has a bound, and affects nobody else."""

import json
import re
import socket

import psutil
import pytest
import requests
import valkey

from everstream.log.counters import COUNTERS, GAUGES
from everstream.log.keys import Keys
from harness.sse_client import assert_whole, connect, read_all, text_of
from harness.stack import wait_for

EVENTS = {"Accept": "text/event-stream"}


def fill(stack, count, size):
    """Finished generations of `size` bytes each, oldest first."""
    generations = []
    for _ in range(count):
        generations.append(stack.submit(texts=["x" * 1000], repeat=size // 1000))
        assert_whole(read_all(stack.events_url(generations[-1])))
    return generations


# Readers and abandonment.


def test_only_unread_generations_are_abandoned(own_stack, gate):
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="10").start()
    held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    followed, polled = stack.submit(**held), stack.submit(**held)
    with connect(stack.events_url(followed)) as stream:
        unread = [stack.submit(**held) for _ in range(5)]

        def only_read_generations_run():
            assert stack.show(polled)["state"] in ("queued", "running")
            return stack.metric("generations_cancelled_total") == 5 and stack.running() == 2

        wait_for(only_read_generations_run)
        gate.open()
        assert_whole(stream.read().events)
    assert stack.show(polled)["state"] == "done"
    for generation in unread:
        assert read_all(stack.events_url(generation))[-1].json == {"reason": "abandoned"}


def test_unread_generation_is_abandoned_in_the_queue(own_stack, gate):
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="1", EVERSTREAM_MAX_RUNNING="1").start()
    held = {"texts": ["a", "b"], "hold_before": 2, "gate": gate.path}
    with connect(stack.events_url(stack.submit(**held))) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        unread, later = stack.submit(**held), stack.submit(**held)
        client = valkey.Valkey.from_url(stack.settings.log_url)
        read_at = client.zscore(Keys(stack.settings.namespace).ns + "read", unread)
        wait_for(lambda: server_ms(client) - read_at > 1500, what="the time after which it counts as abandoned")
        with connect(stack.events_url(later)) as read_again:
            wait_for(lambda: client.zscore(Keys(stack.settings.namespace).ns + "read", later) > read_at + 1500)
            gate.open()
            stream.read()
            assert_whole(read_again.read().events)
        client.close()
    assert text_of(read_again.events) == "ab"
    assert [event.type for event in read_all(stack.events_url(unread))] == ["open", "cancelled"]


def server_ms(client):
    seconds, micros = client.time()
    return seconds * 1000 + micros / 1000


def test_stop_works_although_its_message_is_lost(fast, gate):
    generation = fast.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    wait_for(lambda: fast.show(generation)["text"] == "a")
    client = valkey.Valkey.from_url(fast.settings.log_url)
    client.client_kill_filter(_type="pubsub")
    assert requests.delete(f"{fast.url}/generations/{generation}", timeout=30).json()["state"] == "stopping"
    wait_for(lambda: fast.show(generation)["state"] == "cancelled")
    wait_for(lambda: fast.running() == 0)
    client.close()


def test_streams_per_worker_are_limited(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="2", WEB_CONCURRENCY="1").start()
    generation = stack.submit(texts=["a"], hold_before=1, gate=gate.path)
    url = stack.events_url(generation)
    # An invalid request keeps no slot.
    for _ in range(3):
        assert requests.get(f"{stack.url}/stream?other=b", timeout=30).status_code == 400
    first = connect(url).read(until=lambda seen: seen.events)
    with connect(url) as second:
        second.read(until=lambda seen: seen.events)
        for address in (url, f"{stack.url}/stream?texts=b"):
            refused = requests.get(address, timeout=30)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_streams")
            assert refused.headers["Retry-After"] == "5"
            retry = requests.get(address, headers=EVENTS, timeout=30)
            assert retry.status_code == 200
            busy = re.fullmatch("retry: [0-9]{4,5}\n\nevent: busy\ndata: (.*)\n\n", retry.text)
            assert json.loads(busy[1])["code"] == "too_many_streams"
        assert requests.get(f"{stack.url}/healthz", timeout=30).json()["streams"] == 2
        # The refused requests started nothing.
        assert stack.metric("generations_started_total") == 1
        wait_for(lambda: stack.metric("streams_refused_total") == 4)
        first.close()
        wait_for(lambda: is_admitted(url), what="the slot of the closed stream")
        gate.open()
        assert_whole(second.read().events)
    stack.assert_idle()


def is_admitted(url):
    with requests.get(url, timeout=30, stream=True) as answer:
        return answer.ok


# Slow readers.


def open_without_reading(url):
    """A connection that receives only what fits its small buffer."""
    address, _, path = url.removeprefix("http://").partition("/")
    host, port = address.split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def test_stalled_reader_is_cut_and_can_resume(own_stack):
    stack = own_stack(EVERSTREAM_SEND_TIMEOUT_S="3").start()
    generation = stack.submit(texts=["x" * 1000], repeat=3000)
    url = stack.events_url(generation)
    with open_without_reading(url) as stalled:
        # It delays no other reader.
        assert_whole(read_all(url))
        wait_for(lambda: stack.metric("streams_stalled_total") == 1)
        assert stack.streams() == 0
        received, chunk = b"", b"x"
        stalled.settimeout(30)
        with pytest.raises(ConnectionError):
            while chunk:
                chunk = stalled.recv(65536)
                received += chunk
    seen = max(int(n) for n in re.findall(rb"\nid: [0-9a-f]{32}\.([0-9]+)\ndata: .*\n\n", received))
    assert 0 < seen < 3000
    rest = read_all(url, last_id=f"{generation}.{seen}")
    assert [int(event.id.partition(".")[2]) for event in rest] == list(range(seen + 1, 3002))


def test_stream_continues_after_a_full_socket_buffer(fast, gate):
    """A caught-up reader gets tokens by direct writes, until it stops reading and the socket buffer is full."""
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
    more = [open_without_reading(url) for _ in range(50)]
    wait_for(lambda: stack.streams() == 70)
    assert_whole(read_all(url))
    # The answer has 20 MB; docs/reliability.md promises less than 1 MiB per reader, whatever it reads.
    assert psutil.Process(worker).memory_info().rss - before < 50 << 20
    for stream in slow[:3]:
        assert_whole(stream.read().events)
    for connection in (*slow, *more):
        connection.close()
    wait_for(lambda: stack.streams() == 0)


def test_incomplete_body_times_out(own_stack):
    stack = own_stack(EVERSTREAM_BODY_TIMEOUT_S="0.5").start()
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(b"POST /generations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        connection.settimeout(30)
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")


# Limits.


def test_full_log_evicts_the_oldest_finished_generations(own_stack):
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


def test_accounted_bytes_match_valkeys_memory(own_stack):
    stack = own_stack().start()
    client = valkey.Valkey.from_url(stack.settings.log_url)
    before = client.info("memory")["used_memory"]
    generations = fill(stack, 20, 100_000) + [stack.submit(texts=["token"], repeat=1000) for _ in range(20)]
    for generation in generations:
        wait_for(lambda generation=generation: stack.show(generation)["state"] == "done")
    used = client.info("memory")["used_memory"] - before
    assert 0.5 < stack.metric("log_bytes") / used < 2
    for generation in generations:
        client.zadd(Keys(stack.settings.namespace).ns + "finished", {generation: 1})
    wait_for(lambda: stack.metric("log_bytes") == 0)
    client.close()


def test_log_full_of_running_generations_sheds_the_largest(own_stack, gate):
    stack = own_stack(EVERSTREAM_MAX_LOG_BYTES="400000").start()
    small = stack.submit(texts=["x" * 1000], repeat=20, hold_before=15, gate=gate.path)
    large = stack.submit(texts=["x" * 1000], repeat=1000, pause_ms=5, hold_before=300, gate=gate.path)
    wait_for(lambda: len(stack.show(large)["text"]) == 299_000)
    # An engine reports the size of its entries when it refreshes its leases.
    wait_for(lambda: stack.metric("log_bytes") > 314_000)
    refused = requests.post(f"{stack.url}/generations", json={"texts": ["x" * 1000] * 90}, timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "log_full")
    with connect(stack.events_url(large)) as over, connect(stack.events_url(small)) as under:
        # Running generations may exceed the bound; then the largest is ended.
        gate.open()
        assert over.read().events[-1].json["code"] == "log_full"
        assert under.read().events[-1].type == "done"


def test_output_of_a_generation_is_bounded(own_stack):
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
    # Nothing of it is left, nor is it still accounted for.
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
    missing = {name for name in (*COUNTERS, *GAUGES) if f"# HELP everstream_{name}" not in answer.text}
    assert missing == set()
