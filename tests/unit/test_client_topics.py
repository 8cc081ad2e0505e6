"""Topics in the Python client: what a message is, and following over any number of connections."""

import json
from datetime import UTC, datetime

import pytest

from everstream.client.backoff import Backoff
from everstream.client.errors import ProducerFenced, RequestRefused, Unavailable
from everstream.client.messages import Message, checked_pattern, checked_topic, encoded, since_text
from everstream.client.replies import Reply, published
from everstream.client.requests import Addresses
from everstream.client.topic_subscription import TopicSubscription, follow_options
from everstream.topic_commands.message_lines import as_json, as_text, printable

STREAM = Reply(200, {"content-type": "text/event-stream"}, b"")
CUT = Unavailable("connection_lost", "cut")
PING = b'event: ping\ndata: {"interval_ms":1000}\n\n'


def at(n):
    return f"{1_796_040_000_000_000 + n:016d}"


def event(n, data, kind=""):
    head = f"event: {kind}\n" if kind else ""
    return f"{head}id: {at(n)}\ndata: {json.dumps(data)}\n\n".encode()


def subscription(topics="news", **options):
    given = follow_options(options.get("last"), options.get("since"), options.get("after"))
    return TopicSubscription(topics, given, Backoff(None, lambda: 0.0), 1 << 20)


def connected(*chunks, topics="news", **options):
    made = subscription(topics, **options)
    assert made.opened(STREAM)
    for chunk in chunks:
        made.feed(chunk)
    return made


@pytest.mark.parametrize("topic", ["a", "news/sport", "A.b_c~d@e+f-g", "a/b/c", "x" * 200])
def test_topics(topic):
    assert checked_topic(topic) == checked_pattern(topic) == topic


@pytest.mark.parametrize("topic", ["", "/a", "a/", "a//b", "a b", "ä", "..", "a/../b", ".", "x" * 201, "a?b", None, 7])
def test_wrong_topics(topic):
    with pytest.raises(ValueError, match="topic"):
        checked_topic(topic)


def test_patterns_are_not_topics():
    for pattern in ("*", "**", "news/*", "logs/**/error"):
        assert checked_pattern(pattern) == pattern
        with pytest.raises(ValueError, match="topic"):
            checked_topic(pattern)
    with pytest.raises(ValueError, match="topic"):
        checked_pattern("news/a*")


def test_encoding():
    assert json.loads(encoded({"a": "ü"}, None, None, None)) == {"data": {"a": "ü"}}
    assert json.loads(encoded(None, "n.e", "i", 5)) == {"data": None, "event": "n.e", "id": "i", "ttl_s": 5}
    assert json.loads(encoded(b"\x00\xff", None, None, None)) == {"base64": "AP8="}


@pytest.mark.parametrize("data", [float("nan"), "\ud800", object(), {1, 2}])
def test_data_that_is_not_json(data):
    with pytest.raises((ValueError, TypeError)):
        encoded(data, None, None, None)


@pytest.mark.parametrize("wrong", [{"event": "reset"}, {"event": "a b"}, {"event": ""}, {"id": ""}, {"id": "x" * 129}])
def test_wrong_events_and_ids(wrong):
    with pytest.raises(ValueError, match="not"):
        encoded(1, wrong.get("event"), wrong.get("id"), None)


@pytest.mark.parametrize("ttl_s", [0, -1, True, "5", float("nan"), 1e9])
def test_wrong_times_to_live(ttl_s):
    with pytest.raises(ValueError, match="ttl_s"):
        encoded(1, None, None, ttl_s)


def test_published():
    answer = Reply(200, {}, b'{"topic":"a","ids":["1"],"last":"1","duplicate":false}')
    assert published(answer) == ("1",)
    with pytest.raises(RequestRefused) as refused:
        published(Reply(404, {}, b'{"error":{"code":"topic_gone","message":"gone"}}'))
    assert refused.value.code == "topic_gone"
    for status in (408, 425, 429, 500, 503):
        with pytest.raises(Unavailable):
            published(Reply(status, {}, b""))


@pytest.mark.parametrize(
    ("status", "headers", "epoch"),
    [(403, {"producer-epoch": "4"}, 4), (409, {"producer-expected-seq": "0", "producer-received-seq": "3"}, 0)],
)
def test_producer_that_the_service_knows_otherwise(status, headers, epoch):
    with pytest.raises(ProducerFenced) as raised:
        published(Reply(status, headers, b""))
    assert raised.value.epoch == epoch


@pytest.mark.parametrize(
    ("status", "headers"), [(403, {}), (403, {"producer-epoch": "x"}), (409, {}), (400, {"producer-epoch": "1"})]
)
def test_other_refusals(status, headers):
    with pytest.raises(RequestRefused):
        published(Reply(status, headers, b""))


def test_addresses():
    addresses = Addresses("https://host/ai/")
    assert addresses.topic("a/b@c") == "https://host/ai/topics/a/b@c"
    assert addresses.messages(["a/b"], {"last": "3"}) == "https://host/ai/topics/a/b?ping=true&last=3"
    several = addresses.messages(["a", "news/**"], {})
    assert several == "https://host/ai/topics?topic=a&topic=news/**&ping=true"
    assert addresses.messages(["*"], {}) == "https://host/ai/topics?topic=*&ping=true"


def test_messages_of_one_topic():
    made = connected(event(0, {"topic": "news"}, "open"), event(1, {"a": 1}), event(2, "b", "headline"))
    assert list(made.messages) == [Message("news", {"a": 1}, "", at(1)), Message("news", "b", "headline", at(2))]
    assert made.messages[0].time == 1_796_040_000.000001


def test_messages_of_several_topics():
    both = {"topic": "a", "data": 1}, {"topic": "news/b", "data": [2]}
    made = connected(event(0, {"topics": ["a", "news/*"]}, "open"), *map(event, (1, 2), both), topics=["a", "news/*"])
    assert [(each.topic, each.data) for each in made.messages] == [("a", 1), ("news/b", [2])]


def test_next_connection_goes_on_after_the_last_message():
    made = connected(PING, event(0, {}, "open"), event(1, "a"), event(2, "b"), last=10)
    made.failed(CUT, 0.0)
    assert made.headers()["Last-Event-ID"] == at(2)
    assert made.query() == {}
    made.opened(STREAM)
    made.feed(event(2, "b") + event(3, "c"))
    assert [each.data for each in made.messages] == ["a", "b", "c"]


def test_next_connection_before_the_first_message():
    """The position of `open` counts: what is published in the meantime is not missed."""
    made = subscription(last=10)
    made.failed(CUT, 0.0)
    assert (made.query(), "Last-Event-ID" in made.headers()) == ({"last": "10"}, False)
    made.opened(STREAM)
    made.feed(event(0, {}, "open"))
    made.failed(CUT, 0.0)
    assert (made.query(), made.headers()["Last-Event-ID"]) == ({}, at(0))


def test_id_without_an_event_is_where_to_go_on():
    """After a `latest` message, which may be older than what other topics have."""
    made = connected(b"event: open\ndata: {}\n\n", event(1, "a"), f"id: {at(7)}\n\n".encode(), last=1)
    assert made.headers()["Last-Event-ID"] == at(7)


def test_id_of_an_event_that_is_not_complete_does_not_count():
    made = connected(event(1, "a"), f"id: {at(2)}\ndata: 2\n".encode())
    assert made.headers()["Last-Event-ID"] == at(1)


def test_stream_that_the_server_can_not_go_on_with():
    made = connected(event(1, "a"))
    with pytest.raises(Unavailable) as raised:
        made.feed(b'event: failed\ndata: {"code":"log_unavailable","message":"no"}\n\n')
    assert raised.value.code == "log_unavailable"


def test_positions_may_go_back_after_a_reset():
    made = connected(event(9, "a"), event(3, {"reason": "lost"}, "reset"), event(4, "b"))
    assert [each.data for each in made.messages] == ["a", {"reason": "lost"}, "b"]
    assert made.position == at(4)


def test_where_to_begin():
    assert subscription(after=at(5)).headers()["Last-Event-ID"] == at(5)
    assert subscription(since=1.5).query() == {"since": "1.5"}
    assert since_text("2026-01-01T00:00:00Z") == "2026-01-01T00:00:00Z"
    assert since_text(datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC)) == "2.0"


@pytest.mark.parametrize(
    "wrong",
    [{"last": -1}, {"last": True}, {"last": "3"}, {"after": "5"}, {"after": 5}, {"since": datetime(2026, 1, 1)}],
)
def test_wrong_places_to_begin(wrong):
    with pytest.raises(ValueError, match=r"not|zone"):
        subscription(**wrong)


def test_contradicting_places_to_begin():
    with pytest.raises(TypeError, match="only one"):
        subscription(last=1, after=at(1))
    with pytest.raises(ValueError, match="no topic"):
        subscription([])


def test_reset_is_a_message():
    made = connected(event(5, {"reason": "history"}, "reset"), event(6, "a"), after=at(1))
    assert [(each.event, each.data, each.is_reset) for each in made.messages] == [
        ("reset", {"reason": "history"}, True),
        ("", "a", False),
    ]
    assert made.position == at(6)


def test_closed_topic_is_the_end():
    made = connected(event(1, "a"), event(2, {"topic": "news", "reason": "closed"}, "closed"), event(3, "b"))
    assert [each.event for each in made.messages] == ["", "closed"]
    assert made.is_over and made.messages[-1].is_closed
    again = subscription(after=at(2))
    assert not again.opened(Reply(204, {}, b""))
    assert again.is_over


def test_no_content_without_a_position_is_no_end():
    with pytest.raises(Unavailable):
        subscription().opened(Reply(204, {}, b""))


def test_one_of_several_topics_is_closed():
    closed = event(1, {"topic": "a", "reason": "deleted"}, "closed")
    made = connected(closed, event(2, {"topic": "b", "data": 1}), topics=["a", "b"])
    assert [(each.topic, each.data) for each in made.messages] == [("a", {"topic": "a", "reason": "deleted"}), ("b", 1)]
    assert not made.is_over


def delays(made, attempts, *chunks):
    found = []
    for _ in range(attempts):
        made.failed(CUT, 0.0)
        found.append(made.wait_s(0.0))
        made.opened(STREAM)
        for chunk in chunks:
            made.feed(chunk)
    return found


def test_quiet_topic_whose_connections_last_is_retried_soon():
    assert len(set(delays(subscription(), 4, PING, PING))) == 1


def test_connection_that_says_only_hello_is_no_progress():
    assert len(set(delays(subscription(), 4, PING, event(0, {}, "open")))) == 4


def test_presence_is_no_message():
    assert not connected(b'event: presence\ndata: {"followers":1}\n\n').messages


def test_lines():
    message = Message("a/b", {"x": "é"}, "e", at(123_000))
    assert json.loads(as_json(message)) == {
        "topic": "a/b",
        "data": {"x": "é"},
        "event": "e",
        "id": at(123_000),
        "time": 1_796_040_000.123,
    }
    assert as_json(message).count("\n") == 1
    plain = as_text(message, has_colour=False)
    assert plain.endswith('.123 a/b [e] {"x": "é"}\n') and "\x1b" not in plain
    coloured = as_text(message, has_colour=True)
    assert "\x1b[" in coloured and coloured.endswith('{"x": "é"}\n')


def test_messages_can_not_control_the_terminal():
    text = as_text(Message("a", "one\x1b[2J\r\ntwo\x9b\u202e", "", at(0)), has_colour=False)
    assert text.endswith("a one\\x1b[2J\\r\n    two\\x9b\\u202e\n")
    assert printable("\ta\ud800") == "    a\\ud800"
    inside = as_text(Message("a", {"k": "\x9b"}, "", at(0)), has_colour=False)
    assert "\x9b" not in inside
