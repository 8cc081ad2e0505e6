"""Faults in each part while it serves: streams pause, keep sending heartbeats, and continue."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest
import requests
import valkey

from everstream.log.keys import Keys
from harness.sse_client import assert_whole, connect, follow_to_the_end, read_all, text_of
from harness.stack import wait_for


def read_heartbeats(stream, count):
    wanted = stream.decoder.comments.count("heartbeat") + count
    stream.read(until=lambda seen: seen.decoder.comments.count("heartbeat") >= wanted)


def types(events):
    return [event.type for event in events]


@contextmanager
def engines_restarted(stack):
    """Restart engine processes as they die, as the supervisor would."""
    done = threading.Event()

    def restart():
        while not done.wait(0.05):
            if stack.engines[-1].popen.poll() is not None:
                stack.start_engine()

    with ThreadPoolExecutor(1) as pool:
        restarts = pool.submit(restart)
        try:
            yield
        finally:
            done.set()
            restarts.result()


@contextmanager
def full_disk(stack):
    """Valkey can't write another byte to its append-only file."""
    process = psutil.Process(stack.valkey.pid)
    (increments,) = (stack.settings.state_path / "appendonlydir").glob("*.incr.aof")
    process.rlimit(psutil.RLIMIT_FSIZE, (increments.stat().st_size, psutil.RLIM_INFINITY))
    yield
    if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        process.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


@contextmanager
def out_of_memory(stack):
    """Valkey can't store anything more."""
    client = valkey.Valkey.from_url(stack.settings.log_url)
    before = client.config_get("maxmemory")["maxmemory"]
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", before)
    client.close()


# Valkey.


def test_valkey_paused_for_longer_than_a_lease(own_stack, gate):
    """No stream falls silent, no lease of a live engine is taken over, and no generation counts as abandoned."""
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="5", EVERSTREAM_LEASE_S="3").start(engines=2)
    generations = [stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path) for _ in range(4)]
    urls = [stack.events_url(generation) for generation in generations]
    with ExitStack() as streams:
        stream, *others = (streams.enter_context(connect(url)) for url in urls)
        for each in (stream, *others):
            each.read(until=lambda seen: len(seen.events) == 2)
        stack.valkey.popen.send_signal(signal.SIGSTOP)
        read_heartbeats(stream, 4)
        answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        read_heartbeats(stream, 1)
        stack.valkey.popen.send_signal(signal.SIGCONT)
        # By now both engines have refreshed their leases, and would have cancelled any generation they consider unread.
        wait_for(lambda: stack.readiness()["ready"] and len(stack.readiness()["engines"]) == 2)
        gate.open()
        for each in (stream, *others):
            assert types(each.read().events) == ["open", "message", "message", "done"]


def restart(valkey_process, stack, during):
    valkey_process.kill(signal.SIGTERM)
    during()
    stack.start_valkey()


def pause(valkey_process, _, during):
    valkey_process.popen.send_signal(signal.SIGSTOP)
    during()
    valkey_process.popen.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("interrupt", [restart, pause])
def test_valkey_interrupted_within_half_a_lease(own_stack, gate, interrupt):
    """Engines notice no danger for their leases, but web processes could not say who reads for longer than a generation
    may be unread."""
    stack = own_stack(EVERSTREAM_ABANDON_AFTER_S="2", EVERSTREAM_LEASE_S="60").start()
    generations = [stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path) for _ in range(4)]
    with ExitStack() as streams:
        stream, *others = (streams.enter_context(connect(stack.events_url(each))) for each in generations)
        for each in (stream, *others):
            each.read(until=lambda seen: len(seen.events) == 2)
        interrupt(stack.valkey, stack, during=lambda: read_heartbeats(stream, 3))
        # By now the engine has refreshed its leases.
        wait_for(lambda: stack.readiness()["ready"])
        read_heartbeats(stream, 1)
        gate.open()
        for each in (stream, *others):
            assert types(each.read().events) == ["open", "message", "message", "done"]


def test_valkey_out_of_memory_for_a_while(own_stack, gate):
    stack = own_stack(EVERSTREAM_LEASE_S="10").start()
    generation = stack.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        with out_of_memory(stack):
            gate.open()
            read_heartbeats(stream, 2)
            answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "abc"


def test_valkey_out_of_memory_permanently(own_stack, gate):
    """Each generation with output to append gets a terminal entry, so that no reader waits forever."""
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


def test_emptied_log(own_stack, gate):
    """As after FLUSHALL, or a failover to a replica that was still empty."""
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
def test_disk_full_for_a_while(own_stack, gate, fsync):
    """With `always` Valkey exits; otherwise it refuses writes. Either way, delivered output is still in the log."""
    stack = own_stack(EVERSTREAM_FSYNC=fsync).start()
    generation = stack.submit(texts=["a", "b", "c"], hold_before=2, gate=gate.path)
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        with full_disk(stack):
            gate.open()
            read_heartbeats(stream, 3)
            answer = requests.post(f"{stack.url}/generations", json={"texts": ["c"]}, timeout=30)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        if fsync == "always":
            stack.valkey.popen.wait(30)
            stack.start_valkey()
        assert_whole(stream.read().events)
    assert text_of(stream.events) == "abc"


def test_lost_entries_are_reported(own_stack, gate):
    """As after an external Valkey fails over to a replica that lagged behind."""
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b", "c", "d"], hold_before=4, gate=gate.path)
    url = stack.events_url(generation)
    client = valkey.Valkey.from_url(stack.settings.log_url)
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 4)
        log = Keys(stack.settings.namespace).log(generation)
        client.set(log, b"".join(client.get(log).splitlines(keepends=True)[:2]))
        stream.read()
        assert (stream.events[-1].type, stream.events[-1].json["code"]) == ("failed", "entries_lost")
    with connect(url, last_id=f"{generation}.3") as again:
        assert (again.status, again.read().events[-1].json["code"]) == (200, "entries_lost")
    with connect(url, last_id=again.decoder.last_id) as after_the_end:
        assert after_the_end.status == 204
    gate.open()
    client.close()


# Engines.


def test_healthy_generations_survive_one_that_crashes_engines(own_stack):
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    healthy = [stack.submit(texts=["a "], repeat=200, pause_ms=50) for _ in range(20)]
    killer = stack.submit(texts=["a", "b", "c"], pause_ms=100, kill_before=3)
    with engines_restarted(stack):
        events = read_all(stack.events_url(killer))
        assert (text_of(events), events[-1].json["code"]) == ("ab", "engine_crashed")
        # Four crashes: two with all other generations, and two more when it was retried alone.
        assert types(events).count("resumed") == 3
        for generation in healthy:
            events = read_all(stack.events_url(generation))
            assert_whole(events)
            assert text_of(events) == "a " * 200


def test_healthy_generations_survive_before_their_first_output(own_stack, gate):
    """Without output, all generations of a crashed engine look alike, so they are retried one by one."""
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    healthy = [stack.submit(texts=["a", "b"], hold_before=1, gate=gate.path) for _ in range(5)]
    wait_for(lambda: stack.running() == 5)
    killer = stack.submit(texts=["c"], kill_before=1)
    healthy += [stack.submit(texts=["a", "b"], hold_before=1, gate=gate.path) for _ in range(5)]
    for _ in range(3):
        engine = stack.engines[-1]
        wait_for(lambda engine=engine: engine.popen.poll() is not None, what="the engine to crash")
        stack.start_engine()
    gate.open()
    with engines_restarted(stack):
        assert read_all(stack.events_url(killer))[-1].json["code"] == "engine_crashed"
        for generation in healthy:
            assert text_of(read_all(stack.events_url(generation))) == "ab"


def test_generation_that_crashes_engines_between_outputs_fails(own_stack):
    stack = own_stack(EVERSTREAM_LEASE_S="0.6").start()
    killer = stack.submit(texts=["a"], repeat=100, pause_ms=100, kill_after=2)
    with engines_restarted(stack):
        events = read_all(stack.events_url(killer))
    assert_whole(events)
    assert (text_of(events), events[-1].json["code"]) == ("a" * 20, "engine_crashed")


def test_stopping_engine_hands_over_its_work_at_once(own_stack, gate):
    # With a lease this long, a generation that is not handed over would not continue within this test.
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


def resumed_events(url, stream):
    """All events of a cut stream, including those after it reconnects."""
    return stream.events + follow_to_the_end(url, stream.decoder.last_id)[0]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_streams_move_when_workers_are_replaced(own_stack, gate, number):
    stack = own_stack(EVERSTREAM_RETRY_MS="100").start()
    # Wait for all workers: one that does not handle signals yet would miss the signal below.
    assert stack.streams() == 0
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = stack.events_url(generation)
    streams = open_streams(url, 100)
    old = stack.workers()
    stack.web.popen.send_signal(number)
    for stream in streams:
        # Complete, including the final chunk, so that a proxy sees no error either.
        stream.read()
        assert types(stream.events) == ["open", "message"]
    retries = [stream.decoder.retry_ms for stream in streams]
    assert min(retries) >= 100
    # Spread out, and further than at the start of a stream, where the delay is at most 1.5 times EVERSTREAM_RETRY_MS.
    assert len(set(retries)) > 30
    assert max(retries) > 150
    if number == signal.SIGTERM:
        assert stack.web.popen.wait(30) == 0
        stack.start_web()
    wait_for(lambda: not set(stack.workers()) & set(old) and len(stack.workers()) == 2, what="new workers")
    gate.open()
    for stream in streams:
        assert_whole(resumed_events(url, stream))
        stream.close()
    assert "Traceback" not in stack.web.output


def test_gunicorn_master_killed(own_stack, gate):
    stack = own_stack().start()
    generation = stack.submit(texts=["a", "b"], hold_before=2, gate=gate.path)
    url = stack.events_url(generation)
    workers = [psutil.Process(pid) for pid in stack.workers()]
    with connect(url) as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        stack.web.kill()
        # They notice, and release the port.
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        stack.start_web()
        gate.open()
        assert_whole(resumed_events(url, stream))


def test_too_few_open_files_are_reported(own_stack):
    stack = own_stack(EVERSTREAM_MAX_STREAMS="50000")
    gunicorn = f"ulimit -n 2000; exec {sys.executable} -m gunicorn -c gunicorn.conf.py wsgi:app"
    web = stack._start("web", ["sh", "-c", gunicorn])
    assert web.popen.wait(60) == 1
    message = "everstream: EVERSTREAM_MAX_STREAMS=50000 takes 51200 open files in a process and only 2000 are allowed"
    assert web.output.startswith(message)
