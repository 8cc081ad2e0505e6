"""Publishing and following topics from Python, with the real parts, while they die and links break: the messages are
counted from end to end."""

import itertools
import os
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime

import psutil
import pytest
import requests

import everstream
from everstream.client import Client, GaveUp, Publisher, RequestRefused, progress, publishing
from everstream.settings import PROJECT_ROOT
from harness.callers import keys
from harness.cutting_proxy import CuttingProxy
from harness.python_client import READERS, meanwhile
from harness.stack import wait_for, web_alone

TIMEOUT_S = 60
_names = itertools.count()


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """Valkey and one worker, which these tests kill and replace."""
    with web_alone(tmp_path_factory.mktemp("topics")) as stack:
        yield stack


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.fixture
def name():
    return f"test/{next(_names)}"


@pytest.fixture
def proxy(topics):
    with CuttingProxy(topics.port) as proxy:
        yield proxy


@pytest.fixture
def publisher(topics):
    with Publisher(topics.url) as publisher:
        yield publisher


def publish_all(publisher, topic, numbers):
    for number in numbers:
        publisher.publish(topic, number)
    assert publisher.flush(TIMEOUT_S)


def data_of(messages):
    return [message.data for message in messages]


def kept(topics, topic, count, **start):
    """What the topic keeps, as another client reads it."""
    return data_of(READERS["sync"].messages(topics.url, topic, count, **start or {"last": 1000}))


def test_messages(topics, publisher, reader, name):
    publisher.publish(name, {"a": "ü"}, event="named")
    publisher.publish(name, "text")
    publisher.publish(name, None)
    assert publisher.flush(TIMEOUT_S)
    found = reader.messages(topics.url, name, 3, last=10)
    assert [(each.topic, each.data, each.event) for each in found] == [
        (name, {"a": "ü"}, "named"),
        (name, "text", ""),
        (name, None, ""),
    ]
    assert found[0].id < found[1].id < found[2].id
    assert abs(found[0].time - datetime.now(UTC).timestamp()) < 600


def test_several_topics_and_patterns(topics, publisher, reader, name):
    for n, topic in enumerate([f"{name}/a", f"{name}/b/c", f"{name}/a", f"{name}/d"]):
        publish_all(publisher, topic, [n])
    found = reader.messages(topics.url, [f"{name}/a", f"{name}/*/c"], 3, last=10)
    assert [(each.topic, each.data) for each in found] == [(f"{name}/a", 0), (f"{name}/b/c", 1), (f"{name}/a", 2)]
    assert data_of(reader.messages(topics.url, f"{name}/**", 4, last=10)) == [0, 1, 2, 3]


def test_where_to_begin(topics, publisher, reader, name):
    publish_all(publisher, name, range(5))
    assert data_of(reader.messages(topics.url, name, 2, last=2)) == [3, 4]
    found = reader.messages(topics.url, name, 5, after="0" * 16)
    assert data_of(found) == [0, 1, 2, 3, 4]
    assert data_of(reader.messages(topics.url, name, 3, after=found[1].id)) == [2, 3, 4]
    assert data_of(reader.messages(topics.url, name, 4, since=found[1].time)) == [1, 2, 3, 4]
    at = datetime.fromtimestamp(found[3].time, UTC)
    assert data_of(reader.messages(topics.url, name, 2, since=at)) == [3, 4]


def test_same_id_is_taken_once(topics, publisher, name):
    for data in ("first", "second"):
        publisher.publish(name, data, id="one")
    publish_all(publisher, name, ["third"])
    assert kept(topics, name, 2) == ["first", "third"]


def test_topic_with_its_latest_message(topics, publisher, reader, name):
    with Client(topics.url) as client:
        client.make_topic(name, latest=True)
        client.make_topic(name, latest=True)
        with pytest.raises(RequestRefused) as refused:
            client.make_topic(name, latest=False)
        assert refused.value.code == "topic_conflict"
    for _ in progress(name, range(50), every_s=0.001, publisher=publisher):
        pass
    assert publisher.flush(TIMEOUT_S)
    (state,) = reader.messages(topics.url, name, 1)
    assert (state.data["done"], state.data["total"], state.data["state"]) == (50, 50, "done")


def test_binary_topic(topics, publisher, name):
    publisher.publish(name, b"\x00")
    assert not publisher.flush(TIMEOUT_S), "it is no binary topic"
    with Client(topics.url) as client:
        client.make_topic(name, content_type="application/octet-stream")
    publish_all(publisher, name, [b"\x00\xff"])
    assert kept(topics, name, 1) == ["AP8="]


@pytest.fixture
def long_topic(topics, name):
    """One that keeps everything."""
    with Client(topics.url) as client:
        client.make_topic(name)
    return name


def assert_nothing_is_lost(topics, url, topic, reader, fault):
    """Publish and follow, with a fault in the middle."""
    count, found = 2000, []
    with (
        Publisher(url, request_timeout_s=2) as publisher,
        meanwhile(reader.messages, url, topic, count, found.append, after="0" * 16),
    ):
        publish_all(publisher, topic, range(500))
        wait_for(lambda: len(found) >= 100, what="the first messages")
        for number in range(500, 1000):
            publisher.publish(topic, number)
        fault()
        for number in range(1000, count):
            publisher.publish(topic, number)
        assert publisher.flush(TIMEOUT_S)
    assert data_of(found) == list(range(count))
    # The topic itself has each once, too.
    assert kept(topics, topic, count, after="0" * 16) == list(range(count))


def test_worker_killed(topics, reader, long_topic):
    def kill():
        (pid,) = topics.workers()
        psutil.Process(pid).kill()

    assert_nothing_is_lost(topics, topics.url, long_topic, reader, kill)


def test_gunicorn_replaced(topics, reader, long_topic):
    def replace():
        topics.web.stop()
        topics.start_web()

    assert_nothing_is_lost(topics, topics.url, long_topic, reader, replace)


def test_valkey_killed_and_restarted(topics, reader, long_topic):
    def replace():
        topics.valkey.kill()
        topics.start_valkey()

    assert_nothing_is_lost(topics, topics.url, long_topic, reader, replace)


def test_answers_lost_and_streams_cut(topics, proxy, reader, long_topic):
    def cut():
        proxy.mode = "cut"
        wait_for(lambda: proxy.cuts >= 3, what="lost answers")
        proxy.mode = "pass"
        proxy.cut_now()

    assert_nothing_is_lost(topics, proxy.url, long_topic, reader, cut)


def test_service_away(topics, proxy, reader, long_topic):
    def leave():
        proxy.mode = "refuse"
        threading.Timer(1, setattr, (proxy, "mode", "pass")).start()

    assert_nothing_is_lost(topics, proxy.url, long_topic, reader, leave)


def test_frozen_link(topics, proxy, reader, long_topic):
    """No byte and no error comes: the follower misses pings, the publisher an answer."""

    def freeze():
        known = proxy.accepted
        proxy.mode = "freeze"
        wait_for(lambda: proxy.accepted >= known + 2, what="both to notice that the link is dead")
        proxy.mode = "pass"

    assert_nothing_is_lost(topics, proxy.url, long_topic, reader, freeze)


def test_quiet_topic_after_a_cut(topics, publisher, proxy, reader, name):
    """What is published while the follower is away, and before it has seen any message, is not missed."""
    with meanwhile(reader.messages, proxy.url, name, 1) as reading:
        wait_for(lambda: presence(topics, name) == 1, what="the follower")
        proxy.mode = "refuse"
        publish_all(publisher, name, ["missed?"])
        proxy.mode = "pass"
        assert data_of(reading.result(TIMEOUT_S)) == ["missed?"]


def presence(topics, name):
    return requests.get(f"{topics.url}/presence", params={"topic": name}, timeout=30).json()["followers"]


def test_history_that_is_gone(topics, publisher, reader, name):
    with Client(topics.url) as client:
        client.make_topic(name, history=10)
    publish_all(publisher, name, [0])
    (first,) = reader.messages(topics.url, name, 1, last=1)
    publish_all(publisher, name, range(1, 30))
    found = reader.messages(topics.url, name, 11, after=first.id)
    assert (found[0].is_reset, found[0].data) == (True, {"reason": "history"})
    assert data_of(found[1:]) == list(range(20, 30))


def test_closed_topic(topics, publisher, reader, name):
    publish_all(publisher, name, ["last"])
    closing = {"Stream-Closed": "true"}
    assert requests.post(f"{topics.url}/v1/stream/{name}", headers=closing, timeout=30).status_code in (200, 204)
    found = reader.messages(topics.url, name, 10, last=1)
    assert [(each.data, each.is_closed) for each in found] == [("last", False), ({"reason": "closed"}, True)]
    assert reader.messages(topics.url, name, 10, after=found[-1].id) == []
    publisher.publish(name, "late")
    assert not publisher.flush(TIMEOUT_S)
    assert publisher.stats().refused == 1


def test_keys(own_stack, reader, caplog, monkeypatch):
    stack = own_stack(WEB_CONCURRENCY="1", EVERSTREAM_ACCESS="keys")
    stack.start_valkey()
    stack.start_web()
    key = keys(stack, "add", "sensor", "--scopes", "publish,read")
    headers = {"Authorization": f"Bearer {key}"}
    with Publisher(stack.url, headers=headers) as publisher:
        publish_all(publisher, "a", [1])
    assert data_of(reader.messages(stack.url, "a", 1, last=1, options={"headers": headers})) == [1]
    with pytest.raises(RequestRefused) as refused:
        reader.messages(stack.url, "a", 1)
    assert refused.value.status == 401
    with Publisher(stack.url) as publisher:
        publisher.publish("a", 2)
        assert not publisher.flush(TIMEOUT_S)
    assert "messages for the topic a are refused, and dropped: " in caplog.text and "key" in caplog.text
    monkeypatch.setenv("EVERSTREAM_URL", stack.url)
    monkeypatch.setenv("EVERSTREAM_API_KEY", key)
    monkeypatch.setattr(publishing, "_publisher", None)
    everstream.publish("a", 3)
    assert everstream.flush(TIMEOUT_S)
    assert everstream.stats().acknowledged == 1
    assert data_of(itertools.islice(everstream.follow("a", last=2), 2)) == [1, 3]
    publishing.default_publisher().close()


def test_giving_up(proxy, reader, name):
    proxy.mode = "refuse"
    with pytest.raises(GaveUp):
        reader.messages(proxy.url, name, 1, options={"give_up_after_s": 1})


def test_closing_from_another_thread(topics, name):
    with Client(topics.url) as client, client.follow_topics(name) as messages, meanwhile(list, messages) as reading:
        wait_for(lambda: messages.position, what="the stream to begin")
        messages.close()
        assert reading.result(TIMEOUT_S) == []


PRELUDE = """
import asyncio, itertools
import everstream
items, url = [1, 2], "http://host"
def work(item): pass
def download(url, callback): callback(1, 1)
def follow_some(topics, **start): return itertools.islice(everstream.client.follow(topics, **start), 2)
"""


def test_examples_of_the_docs(topics):
    """As written, but for the service's address and a loop that has an end."""
    text = (PROJECT_ROOT / "docs" / "publishing.md").read_text()
    blocks = re.findall("^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = PRELUDE + "\n".join([*blocks, "flush(30)", "asyncio.run(show())"])
    code = code.replace("http://127.0.0.1:8000", topics.url).replace("in follow(", "in follow_some(")
    environ = {"EVERSTREAM_URL": topics.url, "PYTHONPATH": str(PROJECT_ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "It works" in done.stdout and "'message': 'It is getting warm'" in done.stdout
    assert "'state': 'done'" in done.stdout
