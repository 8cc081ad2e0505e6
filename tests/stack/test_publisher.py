"""Publishing from Python when the service is away, loses answers or refuses, and when the program ends or forks. The
server is a small one that a test can make do so; `test_topic_clients.py` has the real one."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from everstream.client import LogHandler, Publisher, progress
from everstream.settings import PROJECT_ROOT
from harness.stack import wait_for
from harness.topic_server import TopicServer, problem

TIMEOUT_S = 60


@pytest.fixture
def server():
    with TopicServer() as server:
        yield server


@pytest.fixture
def publisher(server):
    with Publisher(server.url) as publisher:
        yield publisher


def publish_all(publisher, topic, numbers):
    for number in numbers:
        publisher.publish(topic, number)


def script(server, code, *, expected=0, **environ):
    """Run a program to its end. Returns what it says on standard error."""
    with started(server, code, **environ) as process:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == expected, errors
    return errors


def started(server, code, **environ):
    environ = {"EVERSTREAM_URL": server.url, "PYTHONPATH": str(PROJECT_ROOT), "PATH": os.environ["PATH"], **environ}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_order_and_counts(server, publisher):
    publish_all(publisher, "a", range(3000))
    publisher.publish("b", {"x": "ü"}, event="named", id="one", ttl_s=5)
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(3000))
    assert server.topics["b"].messages == [{"data": {"x": "ü"}, "event": "named", "id": "one", "ttl_s": 5}]
    assert {(producer, epoch) for _, producer, epoch, _, _ in server.posts} == {(publisher.producer, 0)}
    assert publisher.stats() == (3001, 3001, 0, 0, 0, 0)


def test_lost_answers(server, publisher):
    server.lost = 3
    publish_all(publisher, "a", range(50))
    assert publisher.flush(TIMEOUT_S)
    publish_all(publisher, "a", range(50, 100))
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(100))
    assert len({seq for _, _, _, seq, _ in server.posts}) < len(server.posts)


def test_service_that_is_away(server, publisher):
    publish_all(publisher, "a", range(10))
    assert publisher.flush(TIMEOUT_S)
    with server.away():
        publish_all(publisher, "a", range(10, 200))
        assert not publisher.flush(0.01)
        assert publisher.stats().waiting == 190
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(200))


def test_service_that_comes_later(server):
    server.stop()
    with Publisher(server.url) as publisher:
        publish_all(publisher, "a", range(10))
        server.start()
        assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(10))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_service_that_is_busy(server, publisher, status):
    server.replies = [problem(status, "busy"), (status, b"<html>", {"Retry-After": "0"})]
    publish_all(publisher, "a", range(3))
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == [0, 1, 2]


def test_publishing_never_waits(server, publisher):
    """The service holds a request; nothing here may wait for it."""
    server.gate.clear()
    publish_all(publisher, "a", range(10))
    wait_for(lambda: publisher._sender.outbox._outbox._begun, what="the first request")
    publish_all(publisher, "a", range(10, 500))

    async def publish():
        publish_all(publisher, "b", range(500))

    asyncio.run(publish())
    assert publisher.stats().acknowledged == 0
    server.gate.set()
    assert publisher.flush(TIMEOUT_S)
    assert (server.data("a"), server.data("b")) == (list(range(500)), list(range(500)))


def test_more_than_may_wait(server, caplog):
    """The oldest are dropped, but not those that may have been sent."""
    server.gate.clear()
    with Publisher(server.url, max_messages=100) as publisher:
        publish_all(publisher, "a", range(5))
        wait_for(lambda: publisher._sender.outbox._outbox._begun, what="the first request")
        begun = len(publisher._sender.outbox._outbox._begun["a"].batches[0].parts)
        publish_all(publisher, "a", range(5, 300))
        stats = publisher.stats()
        assert (stats.waiting, stats.dropped) == (100, 200)
        server.gate.set()
        assert not publisher.flush(TIMEOUT_S), "messages were dropped"
        assert publisher.flush(TIMEOUT_S), "since then none were"
        assert server.data("a") == [*range(begun), *range(200 + begun, 300)]
        wait_for(lambda: "the oldest are dropped" in caplog.text, what="the warning")
        assert caplog.text.count("the oldest are dropped") == 1


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410, 413])
def test_refused_topic(server, publisher, caplog, status):
    """One warning that says why, and other topics go on."""
    server.refuse = lambda topic, messages: (status, f"no_{status}") if topic == "bad" else None
    publish_all(publisher, "bad", [1])
    assert not publisher.flush(TIMEOUT_S)
    publish_all(publisher, "bad", [2])
    publish_all(publisher, "good", [3])
    assert not publisher.flush(TIMEOUT_S)
    assert (server.data("bad"), server.data("good")) == ([], [3])
    assert publisher.stats().refused == 2
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"messages for the topic bad are refused, and dropped: no (no_{status})"
    ]
    server.refuse = None
    publish_all(publisher, "bad", [4])
    assert publisher.flush(TIMEOUT_S)
    assert server.data("bad") == [4]


def test_stopping_at_the_first_refused_message(server):
    server.refuse = lambda topic, messages: (400, "invalid_request") if {"data": 5} in messages else None
    with Publisher(server.url, stops_when_refused=True) as publisher:
        publish_all(publisher, "a", range(5))
        assert publisher.flush(TIMEOUT_S)
        publisher.publish("a", 5)
        assert not publisher.flush(TIMEOUT_S)
        publish_all(publisher, "a", range(6, 10))
        assert not publisher.flush(TIMEOUT_S)
        assert publisher.stats() == (10, 5, 0, 1, 4, 4 * len('{"data":6}'))
    assert server.data("a") == list(range(5))


def test_one_bad_message_does_not_take_others_with_it(server, publisher):
    server.refuse = lambda topic, messages: (
        (400, "invalid_request") if any(each["data"] in (13, 77) for each in messages) else None
    )
    publish_all(publisher, "a", range(100))
    assert not publisher.flush(TIMEOUT_S)
    assert server.data("a") == [number for number in range(100) if number not in (13, 77)]
    assert publisher.stats().refused == 2


def test_service_that_takes_only_small_bodies(server, publisher):
    server.refuse = lambda topic, messages: (413, "body_too_large") if len(messages) > 7 else None
    publish_all(publisher, "a", range(1000))
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(1000))


def test_service_that_has_forgotten_the_producer(server, publisher):
    publish_all(publisher, "a", [1])
    assert publisher.flush(TIMEOUT_S)
    server.topics.clear()
    publish_all(publisher, "a", [2])
    assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == [2]


def test_threads(server, publisher):
    def publish(thread):
        publish_all(publisher, f"t{thread % 2}", [[thread, n] for n in range(500)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(8)))
    assert publisher.flush(TIMEOUT_S)
    for topic in range(2):
        found = server.data(f"t{topic}")
        assert len(found) == 2000
        for thread in range(topic, 8, 2):
            assert [n for which, n in found if which == thread] == list(range(500))


def test_flush_waits_only_for_what_was_published_before(server, publisher):
    done = threading.Event()

    def publish():
        while not done.is_set():
            publisher.publish("busy", 1)
            publisher.wait_for_room(TIMEOUT_S)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(publish)
        publisher.publish("a", 1)
        assert publisher.flush(TIMEOUT_S)
        assert server.data("a") == [1]
        done.set()


def test_wait_for_room(server):
    server.gate.clear()
    with Publisher(server.url, max_messages=100) as publisher:
        publish_all(publisher, "a", range(60))
        assert not publisher.wait_for_room(0.01)
        server.gate.set()
        for number in range(60, 1000):
            assert publisher.wait_for_room(TIMEOUT_S)
            publisher.publish("a", number)
        assert publisher.flush(TIMEOUT_S)
    assert server.data("a") == list(range(1000))


def test_closed_publisher(server):
    publisher = Publisher(server.url)
    publisher.publish("a", 1)
    assert publisher.close()
    with pytest.raises(ValueError, match="closed"):
        publisher.publish("a", 2)
    wait_for(lambda: not publisher._sender._is_running, what="the end of its thread")


def test_key(server):
    script(server, "from everstream import publish; publish('a', 1)", EVERSTREAM_API_KEY="es-secret")
    assert server.authorizations == {"Bearer es-secret"}


def test_log_records_of_publishing_are_not_published(server, publisher):
    handler = LogHandler("logs", publisher=publisher)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        logging.getLogger("app").info("hello")
        for _ in range(3):
            assert publisher.flush(TIMEOUT_S)
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    assert [each["message"] for each in server.data("logs")] == ["hello"]


def test_progress_while_the_service_is_away(server, publisher):
    """Only what may have been sent, and the newest state, wait for it."""
    with server.away():
        for _ in progress("job", range(1000), every_s=0.001, publisher=publisher):
            pass
        assert publisher.stats().waiting <= 2
    assert publisher.flush(TIMEOUT_S)
    assert (server.data("job")[-1]["done"], server.data("job")[-1]["state"]) == (1000, "done")


def test_end_of_the_program(server):
    assert script(server, "from everstream import publish\nfor n in range(3000): publish('a', n)") == ""
    assert server.data("a") == list(range(3000))


def test_end_of_the_program_while_the_service_is_away():
    """It ends all the same, and says what is lost."""
    with TopicServer() as server:
        server.stop()
        errors = script(server, "from everstream import publish; publish('a', 1)")
    assert "not all of its messages are published" in errors


def test_messages_of_the_end(server):
    """Published by handlers of atexit, when no thread can be started any more in newer Pythons."""
    code = """
import atexit
import everstream
atexit.register(lambda: everstream.publish("a", "last"))
everstream.publish("a", "first")
"""
    script(server, code)
    assert server.data("a") == ["first", "last"]


def test_flush_without_a_thread(server):
    code = """
import threading
def start(self): raise RuntimeError("can't start new thread")
threading.Thread.start = start
from everstream import publish, flush
for n in range(10): publish("a", n)
assert flush(30)
"""
    script(server, code)
    assert server.data("a") == list(range(10))


def test_uncaught_exception(server):
    code = "from everstream import publish\npublish('a', 1)\nraise SystemExit(3)"
    script(server, code, expected=3)
    assert server.data("a") == [1]


def test_ctrl_c(server):
    code = """
import time
from everstream import publish
for n in range(100): publish("a", n)
print("ready", flush=True)
# A signal just before a sleep does not end it.
while True: time.sleep(0.05)
"""
    with started(server, code) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert server.data("a") == list(range(100))


def test_signal_handler_that_publishes(server):
    """It interrupts its own thread in the middle of publishing."""
    code = """
import signal
from everstream import flush, publish, stats
count = 0
def handle(*_):
    global count
    count += 1
    publish("b", count)
    signal.setitimer(signal.ITIMER_REAL, 0.0005 if count < 200 else 0)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
n = 0
while count < 200:
    if stats().waiting < 5000:
        publish("a", n)
        n += 1
assert flush(30)
print(n)
"""
    with started(server, code) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert server.data("a") == list(range(int(output)))
    assert server.data("b") == list(range(1, 201))


def test_fork(server):
    """What waits in the parent is the parent's; the child has a name of its own."""
    server.gate.clear()
    code = """
import os, sys, everstream
for n in range(100): everstream.publish("a", ["parent", n])
print("forking", flush=True)
sys.stdin.readline()
pid = os.fork()
for n in range(100, 200): everstream.publish("a", [pid and "parent" or "child", n])
if pid:
    assert os.waitpid(pid, 0)[1] == 0
assert everstream.flush(30)
"""
    environ = {"EVERSTREAM_URL": server.url, "PYTHONPATH": str(PROJECT_ROOT), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "forking\n"
        wait_for(lambda: server.waiting, what="the parent's first request")
        process.stdin.write("\n")
        process.stdin.flush()
        wait_for(lambda: server.waiting == 2, what="the child's first request")
        server.gate.set()
        assert process.wait(TIMEOUT_S) == 0
    found = server.data("a")
    assert [n for who, n in found if who == "parent"] == list(range(200))
    assert [n for who, n in found if who == "child"] == list(range(100, 200))
    assert len({producer for _, producer, *_ in server.posts}) == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(server, tmp_path, method):
    """Its children don't run atexit."""
    path = tmp_path / "program.py"
    path.write_text(f"""
import multiprocessing
import everstream
def work(n):
    everstream.publish("a", n)
if __name__ == "__main__":
    everstream.publish("a", "parent")
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(n,)) for n in range(3)]
    for each in children: each.start()
    for each in children: each.join()
""")
    environ = {"EVERSTREAM_URL": server.url, "PYTHONPATH": str(PROJECT_ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, path], env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(str, server.data("a"))) == ["0", "1", "2", "parent"]


def test_gevent(server):
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, everstream
def work(name):
    for n in range(100):
        everstream.publish(name, n)
        gevent.sleep(0)
gevent.joinall([gevent.spawn(work, name) for name in "abc"])
assert everstream.flush(30)
everstream.publish("a", "at the end")
"""
    script(server, code)
    assert server.data("a") == [*range(100), "at the end"]
    assert server.data("c") == list(range(100))


def test_environment_that_can_not_work(server):
    """The program goes on, and is told."""
    code = """
import logging, everstream
everstream.publish("a", 1)
assert not everstream.flush(0.5)
everstream.publish("a", 2)
"""
    assert "messages can't be sent: " in script(server, code, ALL_PROXY="nonsense://proxy")
    wrong = "import everstream\ntry: everstream.publish('a', 1)\nexcept ValueError as error: print(error)"
    with started(server, wrong, EVERSTREAM_URL="localhost:8000") as process:
        assert "base_url must be like https://host" in process.communicate(timeout=TIMEOUT_S)[0]


def test_package_without_httpx():
    code = """
import sys
sys.modules["httpx"] = None
import everstream
print(everstream.__version__)
try:
    from everstream import publish
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert "everstream[client]" in done.stdout
    lazily = "import everstream, sys; print('httpx' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", lazily], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert done.stdout == "False\n"
