"""Topics over HTTP: every follower gets each message once, in order, whatever is killed, lost or slow."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import jsonschema
import pytest
import requests
import valkey

from everstream.log.scripts import load_topic_script
from everstream.log.topic_log import TopicLog
from everstream.log.topic_records import Append, NewMessage, Payer
from everstream.log.web_log import WebLog
from harness.callers import Caller, keys
from harness.sse_client import Decoder, connect, read_all
from harness.stack import Stack, wait_for
from harness.topic_clients import (
    TIMEOUT_S,
    Follower,
    close,
    messages,
    publish,
    publish_surely,
    read_some,
    topic_url,
    values,
)

BEGINNING = "0" * 16
MIXED = [1, "text", "two\nlines", "cr\r\nlf", "", " space", None, {"a": [1, {"b": "é\u2028"}]}, [], 1.5, True, "last"]


def web_of(folder, **environ):
    stack = Stack(folder, **environ)
    stack.start_valkey()
    stack.start_web()
    return stack


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """Two workers, without an engine."""
    stack = web_of(tmp_path_factory.mktemp("topics"), EVERSTREAM_MAX_BODY_BYTES=str(8 << 20))
    try:
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def own_web(tmp_path):
    """Makes one to break."""
    with ExitStack() as stopped:

        def make(**environ):
            folder = tmp_path / "own"
            folder.mkdir()
            stack = web_of(folder, **environ)
            stopped.callback(stack.stop)
            return stack

        yield make


# Formats, and resuming.

FORMATS = {
    "one": lambda stack, name: topic_url(stack, name),
    "text": lambda stack, name: topic_url(stack, name, format="text"),
    "several": lambda stack, name: topic_url(stack, topic=[name, f"{name}/none"]),
    "patterns": lambda stack, name: topic_url(stack, topic=[f"{name}/**"]),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_stream_is_resumed_after_each_event(web, kind):
    name = f"resumed/{kind}"
    acknowledged = publish(web, name, *MIXED)
    url = FORMATS[kind](web, name)
    whole = messages(read_some(url, len(MIXED), BEGINNING))
    assert [event.id for event in whole] == acknowledged["ids"] and acknowledged["last"] == whole[-1].id
    if kind == "text":
        found = [
            event.data if isinstance(value, str) else event.json for event, value in zip(whole, MIXED, strict=True)
        ]
        # A carriage return would end a line.
        assert found == [value.replace("\r\n", "\n") if isinstance(value, str) else value for value in MIXED]
    else:
        wanted = MIXED if kind == "one" else [{"topic": name, "data": value} for value in MIXED]
        assert values(whole) == wanted
    for k in range(len(MIXED) - 1):
        rest = messages(read_some(url, len(MIXED) - k - 1, whole[k].id))
        assert rest == whole[k + 1 :]


def test_beginnings(web):
    ids = publish(web, "beginnings", *range(5))["ids"]
    assert values(read_some(topic_url(web, "beginnings", last=2), 2)) == [3, 4]
    second = int(ids[0]) / 1e6
    assert values(read_some(topic_url(web, "beginnings", since=f"{second:.6f}"), 5)) == list(range(5))
    assert values(read_some(topic_url(web, "beginnings", since=0), 5)) == list(range(5))
    assert values(read_some(topic_url(web, "beginnings", last_event_id=ids[1]), 3)) == [2, 3, 4]
    with connect(topic_url(web, "beginnings")) as stream:
        (opened,) = stream.read(until=lambda seen: seen.events).events
        assert (opened.type, opened.json) == ("open", {"topic": "beginnings"})
        assert opened.id >= ids[-1]
        publish(web, "beginnings", "new")
        assert values(stream.read(until=lambda seen: len(seen.events) == 2).events) == ["new"]


def test_latest_message_greets(web):
    requests.put(topic_url(web, "latest/a"), json={"latest": True}, timeout=TIMEOUT_S)
    publish(web, "latest/a", 1, 2)
    publish(web, "latest/b", 3)
    events = read_some(topic_url(web, topic=["latest/*"]), 1)
    assert [event.type for event in events] == ["open", "message"]
    assert values(events) == [{"topic": "latest/a", "data": 2}]
    with Follower(topic_url(web, topic=["latest/*"])) as follower:
        follower.wait_for(1)
        wait_for(lambda: follower.last_id > messages(follower.events)[0].id, what="the id after the greeting")
        publish(web, "latest/b", 4)
        follower.wait_for(2)
    # What others published before is not for those that begin now.
    assert follower.values == [{"topic": "latest/a", "data": 2}, {"topic": "latest/b", "data": 4}]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("last=0", "last"),
        ("last=1001", "last"),
        ("last=1&since=1", "last"),
        ("since=yesterday", "since"),
        ("since=2026-01-31T12:00:00", "since"),
        ("last_event_id=1", "last_event_id"),
        ("last_event_id=" + "0" * 17, "last_event_id"),
        ("format=xml", "format"),
        ("ping=yes", "ping"),
    ],
)
def test_bad_queries_name_the_field_at_fault(web, query, param):
    for url in (topic_url(web, "a"), topic_url(web, topic="a")):
        answer = requests.get(url + ("&" if "?" in url else "?") + query, timeout=TIMEOUT_S)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("body", [b"\xff", b'{"data":"\xff"}', b'{"data":' + b"[" * 5000 + b"]" * 5000 + b"}"])
@pytest.mark.parametrize("path", ["topics", "v1/stream"])
def test_data_that_followers_could_not_read_is_refused(web, path, body):
    """Else each of them would fail, again and again."""
    publish(web, "poison", "before")
    with Follower(topic_url(web, "poison", format="text")) as follower:
        for kind in ("application/json", "text/plain"):
            if kind == "text/plain" and (path == "v1/stream" or body != b"\xff"):
                continue
            answer = requests.post(
                f"{web.url}/{path}/poison", data=body, headers={"Content-Type": kind}, timeout=TIMEOUT_S
            )
            assert answer.status_code == 400, answer.text
        publish(web, "poison", "after")
        wait_for(lambda: [event.data for event in messages(follower.events)] == ["after"])
    assert follower.connections == 1


def test_deepest_data_that_is_taken_reaches_all(web):
    def is_taken(depth):
        body = b'{"data":' + b"[" * depth + b"]" * depth + b"}"
        headers = {"Content-Type": "application/json"}
        return requests.post(topic_url(web, "deep"), data=body, headers=headers, timeout=TIMEOUT_S).status_code == 200

    with Follower(topic_url(web, "deep")) as one, Follower(topic_url(web, topic="deep/**")) as several:
        depth = next(depth for depth in range(1000, 100, -1) if is_taken(depth))
        one.wait_for(1)
        several.wait_for(1)
    assert one.kinds("message")[0].data == "[" * depth + "]" * depth
    assert one.connections == several.connections == 1


def test_all_events_are_as_described(web):
    document = requests.get(f"{web.url}/openapi.json", timeout=TIMEOUT_S).json()
    for path, url in (("/topics/{name}", "described"), ("/topics", "")):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        schemas = {
            each["properties"].get("event", {}).get("const"): each["properties"]["data"]
            for each in content["text/event-stream"]["schema"]["anyOf"]
        }
        requests.put(topic_url(web, "described"), json={"history": 1}, timeout=TIMEOUT_S)
        first = publish(web, "described", 1, 2, 3)["ids"][0]
        query = {"ping": "true"} if url else {"ping": "true", "topic": ["described"]}
        with Follower(topic_url(web, url, last_event_id=first, **query)) as follower:
            follower.wait_for(1)
            publish(web, "described", {"a": 1})
            follower.wait_for(2)
        with Follower(topic_url(web, url, **query)) as newcomer:
            pass
        for event in follower.events + newcomer.events:
            schema = schemas[event.type].get("contentSchema", {})
            jsonschema.validate(event.json, {**schema, "components": document["components"]})
        assert {event.type for event in follower.events + newcomer.events} == {"ping", "reset", "message", "open"}


def test_largest_message(web):
    text = "x" * 1_048_000
    # Live, from the log, and as text.
    with ThreadPoolExecutor() as pool:
        queries = ({}, {"format": "text"})
        live = [pool.submit(read_bytes, topic_url(web, "large", **query), len(text)) for query in queries]
        wait_for(lambda: web.streams() == 2)
        publish(web, "large", text)
        later = [read_bytes(topic_url(web, "large", last_event_id=BEGINNING, **query), len(text)) for query in queries]
        found = [each.result() for each in live] + later
    for events, is_text in zip(found, (False, True, False, True), strict=True):
        (event,) = messages(Decoder().feed(events))
        assert (event.data if is_text else event.json) == text


def read_bytes(url, count):
    """A whole event that has so many, at once: the decoder is made for small pieces."""
    found = bytearray()
    with requests.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        for chunk in answer.iter_content(None):
            found += chunk
            if len(found) > count and found.endswith(b"\n\n"):
                break
    return bytes(found)


def test_closed_topic_ends_its_streams_for_good(web):
    publish(web, "closed", 1)
    with Follower(topic_url(web, "closed", last=1)) as follower:
        close(web, "closed")
        follower._thread.join(TIMEOUT_S)
    assert [event.type for event in follower.events] == ["open", "message", "closed"]
    # It came back once, and was told not to.
    assert follower.connections == 2
    assert [event.type for event in read_all(topic_url(web, "closed", last=1))] == ["open", "message", "closed"]
    answer = requests.post(topic_url(web, "closed"), json={"data": 2}, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "topic_closed")


def test_deleted_topic_resets_its_followers(web):
    publish(web, "deleted", 1)
    with Follower(topic_url(web, "deleted", last=1)) as follower, Follower(topic_url(web, topic="deleted/**")) as wide:
        follower.wait_for(1)
        assert requests.delete(topic_url(web, "deleted"), timeout=TIMEOUT_S).status_code == 204
        wait_for(lambda: follower.kinds("reset"))
        publish(web, "deleted", 2)
        follower.wait_for(2)
        wide.wait_for(1)
    assert follower.kinds("reset")[0].json == {"reason": "deleted"}
    # It has missed nothing.
    assert not wide.kinds("reset")
    assert requests.delete(topic_url(web, "never"), timeout=TIMEOUT_S).status_code == 404


def test_head_follows_nothing(web):
    publish(web, "head", 1)
    for url in (topic_url(web, "head"), topic_url(web, topic="head"), f"{web.url}/v1/stream/head?offset=-1&live=sse"):
        answer = requests.head(url, timeout=TIMEOUT_S)
        assert (answer.status_code, answer.content) == (200, b"")
    wait_for(lambda: web.streams() == 0)


def test_etag_and_long_poll(web):
    url = f"{web.url}/v1/stream/polled"
    publish(web, "polled", 1)
    answer = requests.get(url, {"offset": "-1"}, timeout=TIMEOUT_S)
    assert answer.json() == [1] and answer.headers["Stream-Up-To-Date"] == "true"
    headers = {"If-None-Match": answer.headers["ETag"]}
    same = requests.get(url, {"offset": "-1"}, headers=headers, timeout=TIMEOUT_S)
    assert (same.status_code, same.content) == (304, b"")
    offset = answer.headers["Stream-Next-Offset"]
    nothing = requests.get(url, {"offset": offset, "live": "long-poll"}, timeout=TIMEOUT_S)
    assert (nothing.status_code, nothing.headers["Stream-Next-Offset"]) == (204, offset)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(requests.get, url, {"offset": offset, "live": "long-poll"}, timeout=TIMEOUT_S)
        wait_for(lambda: web.streams() == 1)
        publish(web, "polled", 2)
        assert waiting.result().json() == [2]
    assert requests.get(url, {"offset": "-1"}, headers=headers, timeout=TIMEOUT_S).json() == [1, 2]


def test_expired_messages_hide_nothing_from_durable_readers(web):
    publish(web, "expiring", *range(1000), ttl_s=0.001)
    publish(web, "expiring", "left")
    url, offset, found = f"{web.url}/v1/stream/expiring", "-1", []
    for _ in range(10):
        answer = requests.get(url, {"offset": offset}, timeout=TIMEOUT_S)
        found, offset = found + answer.json(), answer.headers["Stream-Next-Offset"]
        if "Stream-Up-To-Date" in answer.headers:
            break
    assert found == ["left"]


# What is killed, lost, or slow.

COUNT = 300


def publish_many(stack, name, first, count=COUNT):
    for n in range(first, first + count):
        publish_surely(stack, name, n)


def test_killed_workers_lose_and_repeat_nothing(own_web):
    """Publishers and followers of several topics, in all ways."""
    stack = own_web()
    urls = [
        *(topic_url(stack, f"t/{n}") for n in range(2)),
        topic_url(stack, "t/0", format="text"),
        topic_url(stack, topic=["t/*"]),
        topic_url(stack, topic=["t/0", "t/1"]),
    ]
    with ExitStack() as opened, ThreadPoolExecutor() as pool:
        followers = [opened.enter_context(Follower(url)) for url in urls]
        publishing = [pool.submit(publish_many, stack, f"t/{n}", 1000 * n) for n in range(2)]
        for kill in range(1, 4):
            followers[3].wait_for(kill * COUNT // 3)
            victim = stack.workers()[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda victim=victim: victim not in stack.workers() and len(stack.workers()) == 2)
        for each in publishing:
            each.result()
        for follower, count in zip(followers, (1, 1, 1, 2, 2), strict=True):
            follower.wait_for(count * COUNT)
    sent = [list(range(1000 * n, 1000 * n + COUNT)) for n in range(2)]
    assert [follower.values for follower in followers[:3]] == [sent[0], sent[1], sent[0]]
    for follower in followers[3:]:
        for n in range(2):
            assert [each["data"] for each in follower.values if each["topic"] == f"t/{n}"] == sent[n]
        assert len(follower.values) == 2 * COUNT
    assert not any(follower.kinds("reset") or follower.kinds("failed") for follower in followers)
    assert max(follower.connections for follower in followers) > 1


def frozen(stack):
    stack.valkey.popen.send_signal(signal.SIGSTOP)


def thawed(stack):
    stack.valkey.popen.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("breaks", ["restarted", "frozen", "subscription lost"])
def test_broken_valkey_loses_and_repeats_nothing(own_web, breaks):
    stack = own_web()
    with Follower(topic_url(stack, "a")) as one, Follower(topic_url(stack, topic=["**"], ping="true")) as several:
        publish_many(stack, "a", 0, 50)
        with ThreadPoolExecutor() as pool:
            publishing = pool.submit(publish_many, stack, "a", 50, 200)
            one.wait_for(70)
            break_valkey(stack, breaks, several)
            publishing.result()
        one.wait_for(250)
        several.wait_for(250)
    assert one.values == list(range(250))
    assert [each["data"] for each in several.values] == list(range(250))
    assert not one.kinds("reset") and not several.kinds("reset")
    # Their own connections were never at fault.
    assert one.connections == several.connections == 1


def break_valkey(stack, breaks, follower):
    if breaks == "restarted":
        stack.valkey.kill()
        stack.start_valkey()
    elif breaks == "frozen":
        frozen(stack)
        pings = len(follower.kinds("ping"))
        wait_for(lambda: len(follower.kinds("ping")) >= pings + 3, what="heartbeats while Valkey doesn't answer")
        thawed(stack)
    else:
        with closing(valkey.Valkey.from_url(stack.settings.log_url)) as client:
            for _ in range(5):
                client.client_kill_filter(_type="pubsub")


def test_last_live_message_that_is_lost_is_noticed(own_web):
    """No other follows that would show the gap, and the subscription is as it was."""
    stack = own_web()
    with Follower(topic_url(stack, "a")) as follower, closing(WebLog(stack.settings)) as web_log:
        publish(stack, "a", 1)
        follower.wait_for(1)
        log, script = TopicLog(stack.settings, web_log), load_topic_script("publish")
        log._publish = log._client.register_script(script.replace("'topics_live'", "'elsewhere'"))
        log.publish(Append(":a", [NewMessage('["",2]')]), Payer("127.0.0.1"))
        follower.wait_for(2)
    assert follower.values == [1, 2] and follower.connections == 1


def test_slow_reader_gets_all_and_costs_nobody(own_web):
    stack = own_web(EVERSTREAM_READER_QUEUE_BYTES="65536", WEB_CONCURRENCY="1")
    text = "x" * 20_000
    with connect(topic_url(stack, "a")) as slow, Follower(topic_url(stack, "a")) as fast:
        # Far less than what is sent.
        slow.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for n in range(200):
            publish(stack, "a", f"{n} {text}")
        fast.wait_for(200)
        slow.read(until=lambda seen: len(messages(seen.events)) == 200)
    for found in (values(slow.events), fast.values):
        assert [int(each.partition(" ")[0]) for each in found] == list(range(200))
    assert fast.connections == 1 and not any(event.type == "reset" for event in slow.events)


def test_reader_too_slow_for_the_history_is_told(own_web):
    stack = own_web(EVERSTREAM_READER_QUEUE_BYTES="65536", WEB_CONCURRENCY="1")
    requests.put(topic_url(stack, "a"), json={"history": 10}, timeout=TIMEOUT_S)
    text = "x" * 50_000
    with connect(topic_url(stack, "a")) as slow:
        slow.read(until=lambda seen: seen.events)
        for n in range(400):
            publish(stack, "a", f"{n} {text}")
        slow.read(until=lambda seen: messages(seen.events)[-1:] and values(seen.events)[-1].startswith("399 "))
    numbers = [int(each.partition(" ")[0]) for each in values(slow.events)]
    assert numbers == sorted(set(numbers)) and len(numbers) < 400
    gaps = [event for before, event in zip(slow.events, slow.events[1:], strict=False) if is_gap(before, event)]
    assert gaps == [] and next(event.json for event in slow.events if event.type == "reset") == {"reason": "history"}


def is_gap(before, event):
    """Without a reset between them."""
    if before.type != "message" or event.type != "message":
        return False
    return int(event.json.partition(" ")[0]) != int(before.json.partition(" ")[0]) + 1


def test_worker_that_stops_hands_its_followers_over(own_web):
    stack = own_web()
    with Follower(topic_url(stack, "a")) as one, Follower(topic_url(stack, topic=["a"])) as several:
        publish_many(stack, "a", 0, 20)
        for _ in range(2):
            old = stack.workers()
            stack.web.popen.send_signal(signal.SIGHUP)
            wait_for(lambda old=old: not set(old) & set(stack.workers()) and len(stack.workers()) == 2)
            publish_many(stack, "a", len(one.values), 20)
            one.wait_for(len(several.values))
            wait_for(lambda: len(one.values) == len(several.values) and len(one.values) % 20 == 0)
    assert one.values == [each["data"] for each in several.values] == list(range(60))
    assert one.connections > 1 and not one.kinds("failed") and not one.kinds("reset")


# Whose topics they are.


def test_owners_see_nothing_of_each_other(own_web):
    stack = own_web(EVERSTREAM_ACCESS="keys")
    alice, bob = (
        Caller(stack, keys(stack, "add", name, "--scopes", "infer,publish,read")) for name in ("alice", "bob")
    )
    with (
        Follower(topic_url(stack, "same"), headers=alice.headers) as hers,
        Follower(topic_url(stack, topic=["**"]), headers=bob.headers) as his,
    ):
        for caller, value in ((alice, "hers"), (bob, "his")):
            for path in ("/topics/same", f"/topics/{value}"):
                assert caller.call("POST", path, json={"data": value}).status_code == 200
        hers.wait_for(1)
        his.wait_for(2)
        assert alice.call("DELETE", "/topics/hers").status_code == 204
        assert alice.call("POST", "/topics/same", json={"data": "again"}).status_code == 200
        hers.wait_for(2)
    assert hers.values == ["hers", "again"]
    assert his.values == [{"topic": "same", "data": "his"}, {"topic": "his", "data": "his"}]
    assert not his.kinds("reset")
    assert [each["topic"] for each in bob.call("GET", "/topics").json()["topics"]] == ["his", "same"]
    assert [each["topic"] for each in alice.call("GET", "/topics").json()["topics"]] == ["same"]
    for method, path in (("GET", "/v1/stream/hers"), ("DELETE", "/topics/hers"), ("POST", "/v1/stream/hers")):
        answer = bob.call(method, path, data=b"[1]", headers={"Content-Type": "application/json"})
        assert answer.status_code == 404
    for path in ("/topics/same", "/topics", "/v1/stream/same"):
        assert requests.get(stack.url + path, timeout=TIMEOUT_S).status_code == 401
    # A position of another is a time, no more.
    last = alice.call("GET", "/topics").json()["topics"][0]["last"]
    with connect(topic_url(stack, topic=["**"]), last, headers=bob.headers) as stream:
        bob.call("POST", "/topics/his", json={"data": 2})
        assert values(stream.read(until=lambda seen: seen.events).events) == [{"topic": "his", "data": 2}]


# Behind nginx.


def test_nginx_delays_nothing(proxied):
    with connect(topic_url(proxied, "proxied")) as stream:
        stream.read(until=lambda seen: seen.events)
        for n in range(3):
            publish(proxied, "proxied", n)
            stream.read(until=lambda seen, n=n: len(messages(seen.events)) == n + 1)
    assert values(stream.events) == [0, 1, 2]
    with connect(f"{proxied.url}/v1/stream/proxied?offset=-1&live=sse") as stream:
        stream.read(until=lambda seen: len(seen.events) == 2)
        assert stream.events[0].json == [0, 1, 2]
        publish(proxied, "proxied", 3)
        stream.read(until=lambda seen: len(seen.events) == 4)
        assert stream.events[2].json == [3]


def test_several_topics_of_any_type(web):
    made = requests.put(topic_url(web, "several/text"), json={"content_type": "text/plain"}, timeout=TIMEOUT_S)
    assert made.status_code == 201
    body = [
        {"topic": "several/text", "data": "a"},
        {"topic": "several/json", "data": {"b": 1}},
        {"topic": "several/text", "data": 2},
        {"topic": "several/text", "base64": "YQ=="},
    ]
    found = requests.post(f"{web.url}/topics", json=body[:3], timeout=TIMEOUT_S).json()["published"]
    assert [each["topic"] for each in found] == ["several/text", "several/json", "several/text"]
    assert [len(each.get("ids", ())) for each in found] == [1, 1, 0]
    assert (found[2]["error"]["code"], found[2]["error"]["param"]) == ("invalid_request", "data")
    assert values(read_some(topic_url(web, "several/text"), 1, BEGINNING)) == ["a"]
    refused = requests.post(f"{web.url}/topics", json=body[3:], timeout=TIMEOUT_S)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "data")
