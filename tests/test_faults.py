"""What may happen to each part while it serves: streams pause, say that they live, and go on."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import requests
import valkey

from everstream import log
from tests.sse_client import assert_whole, connect, follow_to_the_end, read_all, text_of
from tests.stack import wait_for


def heartbeats(stream, count):
    wanted = stream.decoder.comments.count("heartbeat") + count
    stream.read(until=lambda seen: seen.decoder.comments.count("heartbeat") >= wanted)


def types(events):
    return [event.type for event in events]


@contextmanager
def kept_alive(stack):
    """Start engine processes again as they die, as the launcher would."""
    done = threading.Event()

    def keep():
        while not done.wait(0.05):
            if stack.engines[-1].popen.poll() is not None:
                stack.start_engine()

    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(keep)
        try:
            yield
        finally:
            done.set()
            kept.result()


@contextmanager
def full_disk(stack):
    """Valkey can write no further byte to its append-only file."""
    process = psutil.Process(stack.valkey.pid)
    (increments,) = (stack.settings.state_path / "appendonlydir").glob("*.incr.aof")
    process.rlimit(psutil.RLIMIT_FSIZE, (increments.stat().st_size, psutil.RLIM_INFINITY))
    yield
    if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


@contextmanager
def out_of_memory(stack):
    """Valkey can store nothing more."""
    client = valkey.Valkey.from_url(stack.settings.log_url)
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", before)
    client.close()


# Valkey.


def test_valkey_is_paused_for_longer_than_a_lease(own_stack, gate):
    """No stream is silent, nobody takes over from an engine that lives, nothing is taken for abandoned."""
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="5", EVERSTREAM_LEASE_S="3").start(engines=2)
    generations = [stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path) for _ in range(4)]
    urls = [stack.events_url(generation) for generation in generations]
    with ExitStack() as streams:
        stream, *others = (streams.enter_context(connect(url)) for url in urls)
        for each in (stream, *others):
            each.read(until=lambda seen: len(seen.events) == 2)
        stack.valkey.popen.send_signal(signal.SIGSTOP)
        heartbeats(stream, 4)
        answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        heartbeats(stream, 1)
        stack.valkey.popen.send_signal(signal.SIGCONT)
        # Both engines have looked after their leases again, and would have ended by now what they take for unread.
        wait_for(lambda: stack.readiness()["ready"] and len(stack.readiness()["engines"]) == 2)
        gate.open()
        for each in (stream, *others):
            assert types(each.read().events) == ["open", "message", "message", "done"]


def test_valkey_is_out_of_memory_for_a_while(own_stack, gate):
    stack = own_stack(EVERSTREAM_LEASE_S="10").start()
    generation = stack.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        with out_of_memory(stack):
            gate.open()
            heartbeats(stream, 2)
            answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "abc"


def test_valkey_is_out_of_memory_for_good(own_stack, gate):
    """Then each generation that has something to say is given an end, so that nobody waits for ever."""
    stack = own_stack(EVERSTREAM_LEASE_S="0.5").start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        with out_of_memory(stack):
            gate.open()
            stream.read()
        assert stream.events[-1].json["code"] == "log_full"
        assert_whole(stream.events)
    assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"


def test_the_log_was_emptied(own_stack, gate):
    """As by FLUSHALL, or by failing over to a replica that had nothing yet."""
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream, valkey.Valkey.from_url(stack.settings.log_url) as client:
        stream.read(until=lambda seen: len(seen.events) == 2)
        client.flushall()
        assert requests.get(f"{stack.url}/metrics", timeout=30).status_code == 200
        assert stream.read().events[-1].json["code"] == "generation_expired"
        gate.open()
        wait_for(lambda: stack.readiness()["ready"])
        assert text_of(read_all(stack.events_url(stack.submit(texts=["c"])))) == "c"
    assert stack.engines[0].popen.poll() is None


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_the_disk_is_full_for_a_while(own_stack, gate, fsync):
    """With `always` Valkey ends itself; else it refuses to write. Either way what was shown is still there."""
    stack = own_stack(EVERSTREAM_FSYNC=fsync).start()
    generation = stack.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        with full_disk(stack):
            gate.open()
            heartbeats(stream, 3)
            answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        if fsync == "always":
            stack.valkey.popen.wait(30)
            stack.start_valkey()
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "abc"


def test_a_log_that_lost_what_was_shown_says_so(own_stack, gate):
    """As an outside Valkey may that fails over to a replica that was behind."""
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b", "c", "d"], hold_before=4, gate=gate.path)
    url = stack.events_url(generation)
    client = valkey.Valkey.from_url(stack.settings.log_url)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 4)
        client.xdel(log.Keys(stack.settings.namespace).log(generation), "3-0")
        stream.read()
        assert (stream.events[-1].type, stream.events[-1].json["code"]) == ("failed", "entries_lost")
    with connect(url, last_id=f"{generation}.3") as again:
        assert (again.status, again.read().events[-1].json["code"]) == (200, "entries_lost")
    with connect(url, last_id=again.decoder.last_id) as after_the_end:
        assert after_the_end.status == 204
    gate.open()
    client.close()


# Engines.


def test_the_innocent_outlive_what_kills_their_engine(own_stack):
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    innocent = [stack.submit(texts=["a "], repeat=200, pause_ms=50) for _ in range(20)]
    killer = stack.submit(texts=["a", "b", "c"], pause_ms=100, kill_before=3)
    with kept_alive(stack):
        events = read_all(stack.events_url(killer))
        assert (text_of(events), events[-1].json["code"]) == ("ab", "engine_crashed")
        # Three deaths, and one more for whose part in the first two all others were suspect as well.
        assert types(events).count("resumed") == 3
        for generation in innocent:
            events = read_all(stack.events_url(generation))
            assert_whole(events)
            assert text_of(events) == "a " * 200


def test_the_innocent_that_have_said_nothing_yet_outlive_it_too(own_stack, gate):
    """All that an engine had at its death look alike: so they are tried one by one."""
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    innocent = [stack.submit(texts=["a", "b"], hold_before=1, gate=gate.path) for _ in range(5)]
    wait_for(lambda: stack.running() == 5)
    killer = stack.submit(texts=["c"], kill_before=1)
    innocent += [stack.submit(texts=["a", "b"], hold_before=1, gate=gate.path) for _ in range(5)]
    for _ in range(3):
        engine = stack.engines[-1]
        wait_for(lambda engine=engine: engine.popen.poll() is not None, what="the engine's death")
        stack.start_engine()
    gate.open()
    with kept_alive(stack):
        assert read_all(stack.events_url(killer))[-1].json["code"] == "engine_crashed"
        for generation in innocent:
            assert text_of(read_all(stack.events_url(generation))) == "ab"


def test_what_kills_engines_between_outputs_is_given_up_too(own_stack):
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    killer = stack.submit(texts=["a"], repeat=100, pause_ms=100, kill_after=2)
    with kept_alive(stack):
        events = read_all(stack.events_url(killer))
    assert_whole(events)
    assert (text_of(events), events[-1].json["code"]) == ("a" * 20, "engine_crashed")


def test_an_engine_that_is_told_to_stop_hands_its_work_over_at_once(own_stack, gate):
    # With a lease this long, what is not handed over is not gone on with in this test.
    stack = own_stack(EVERSTREAM_LEASE_S="600").start(engines=2)
    generations = [stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path) for _ in range(6)]
    wait_for(lambda: all(stack.show(generation)["text"] == "a" for generation in generations))
    stack.engines[0].kill(signal.SIGTERM)
    gate.open()
    for generation in generations:
        assert text_of(read_all(stack.events_url(generation))) == "ab"


# The web part.


def open_streams(url, count):
    return [connect(url).read(until=lambda seen: len(seen.events) == 2) for _ in range(count)]


def come_back(url, stream):
    """All events of a stream that was cut and came back."""
    return stream.events + follow_to_the_end(url, stream.decoder.last_id)[0]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_streams_are_sent_elsewhere_when_workers_are_replaced(own_stack, gate, number):
    stack = own_stack(EVERSTREAM_RETRY_MS="100").start()
    # A worker that does not handle signals yet would miss the one below.
    assert stack.streams() == 0
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = stack.events_url(generation)
    streams = open_streams(url, 100)
    old = stack.workers()
    stack.web.popen.send_signal(number)
    for stream in streams:
        # Whole, with the last chunk: a proxy sees no error either.
        stream.read()
        assert types(stream.events) == ["open", "message"]
    retries = [stream.decoder.retry_ms for stream in streams]
    assert min(retries) >= 100
    # Not all at once, and not after what they were told at the start: at most half as long again.
    assert len(set(retries)) > 30
    assert max(retries) > 150
    if number == signal.SIGTERM:
        assert stack.web.popen.wait(30) == 0
        stack.start_web()
    wait_for(lambda: not set(stack.workers()) & set(old) and len(stack.workers()) == 2, what="new workers")
    gate.open()
    for stream in streams:
        assert_whole(come_back(url, stream))
        stream.close()
    assert "Traceback" not in stack.web.output


def test_gunicorns_master_is_killed(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = stack.events_url(generation)
    workers = [psutil.Process(pid) for pid in stack.workers()]
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        stack.web.kill()
        # They notice, and leave the port to the next one.
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        stack.start_web()
        gate.open()
        assert_whole(come_back(url, stream))


def test_too_few_open_files_are_said(own_stack):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="50000")
    gunicorn = f"ulimit -n 2000; exec {sys.executable} -m gunicorn -c gunicorn.conf.py wsgi:app"
    web = stack._start("web", ["sh", "-c", gunicorn])
    assert web.popen.wait(60) == 1
    said = "everstream: EVERSTREAM_MAX_STREAMS=50000 takes 51200 open files in a process and only 2000 are allowed"
    assert web.output.startswith(said)
