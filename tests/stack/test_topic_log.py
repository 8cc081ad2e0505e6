"""The log of topics in a real Valkey: what fails half-way, what is large, and what isn't ours.

`test_topic_protocol` has what may happen in any order."""

from collections import Counter
from contextlib import contextmanager

import pytest
import valkey
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs
from valkey.exceptions import ValkeyError

from everstream.errors import InvalidInput, LogFull
from everstream.log.topic_errors import ProducerFenced, SequenceConflict, TopicConflict, UnknownTopic
from everstream.log.topic_log import TopicLog
from everstream.log.topic_names import regex
from everstream.log.topic_records import JSON, Append, NewMessage, Payer, Producer, Start, Subscription, TopicConfig
from everstream.log.web_log import READ_BYTES, WebLog
from everstream.web.publications import MAX_INTEGER
from harness.stack import Stack

A, B = "o:a", "o:b"
PAYER = Payer("client")
PLAIN = TopicConfig()
BEGINNING = Start("after", 0)
SEGMENTS = st.text("ab%.-+~_@[]^$()*?", min_size=1, max_size=3).filter(lambda text: "*" not in text)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("topic_log"))
    try:
        stack.start_valkey()
        yield stack.settings
    finally:
        stack.stop()


@pytest.fixture
def web(settings):
    web_log = WebLog(settings)
    web_log._client.flushall()
    yield web_log
    web_log.close()


@pytest.fixture
def log(settings, web):
    return TopicLog(settings, web)


@pytest.fixture
def client(web):
    return web._client


@pytest.fixture
def ns(log):
    return log._keys.ns


def publish(log, topic, *entries, make=PLAIN, **options):
    messages = [each if isinstance(each, NewMessage) else NewMessage(f'["",{each}]') for each in entries]
    return log.publish(Append(topic, messages, JSON, make, **options), PAYER)


def read(log, *patterns, start=BEGINNING, max_bytes=READ_BYTES):
    return log.read([(Subscription("o", patterns), start)], max_bytes)[0]


def datas(page):
    return [message.data.decode() for message in page.messages]


def state(client, ns):
    """All that there is, but for the clock."""
    found = {}
    for key in sorted(client.keys("*")):
        kind = client.type(key)
        if kind == b"hash":
            found[key] = client.hgetall(key)
        elif kind == b"stream":
            found[key] = client.xrange(key)
        elif kind == b"zset":
            found[key] = client.zrange(key, 0, -1, withscores=True)
        else:
            found[key] = client.get(key)
    found.pop(f"{ns}topics_clock".encode(), None)
    return {key: value for key, value in found.items() if value not in (b"0", {}, [])}


@contextmanager
def denied(client, command):
    client.execute_command("ACL", "SETUSER", "default", f"-{command}")
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", f"+{command}")


WRITES = ["xadd", "hset", "hincrby", "zadd", "incrby", "zincrby", "publish"]


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "known"])
def test_publish_that_fails_half_way_leaves_nothing(log, client, ns, command, is_new):
    if not is_new:
        publish(log, A, 1, producer=Producer("p", 0, 0))
    before = state(client, ns)
    messages = [2, NewMessage('["",3]', "id"), 4]
    options = {"producer": Producer("p", 0, 0 if is_new else 1), "sequence": "5", "closes": True}
    with denied(client, command), pytest.raises(ValkeyError):
        publish(log, A, *messages, **options)
    assert state(client, ns) == before
    published = publish(log, A, *messages, **options)
    assert len(published.positions) == 3 and published.is_closed
    assert datas(read(log, "a")) == [*([] if is_new else ["1"]), "2", "3", "4"]
    log.delete(A)
    assert client.get(ns + "topic_bytes") == b"0" and not client.exists(ns + "topic_client_bytes")


@pytest.mark.parametrize("command", [*WRITES, "copy"])
def test_topic_that_fails_to_be_made_leaves_nothing(log, client, ns, command):
    publish(log, A, 1, 2)
    before = state(client, ns)
    given = {"messages": [NewMessage('["",3]')], "closes": True, "source": A, "anchor": log.show("o", ["a"])[0].top}
    with denied(client, command), pytest.raises(ValkeyError):
        log.make(B, PAYER, TopicConfig(ttl_s=100), **given)
    found = state(client, ns)
    # The fork's count is 0 where there was none.
    found[f"{ns}topic:{A}".encode()].pop(b"forks", None)
    assert found == before
    assert log.make(B, PAYER, TopicConfig(ttl_s=100), **given).is_new
    assert datas(read(log, "b")) == ["1", "2", "3"]
    log.delete(A)
    log.delete(B)
    assert client.get(ns + "topic_bytes") == b"0"


def test_refused_request_makes_no_topic(log, client, ns):
    small = structs.replace(log._settings, max_topic_bytes=65536)
    log._settings = small
    with pytest.raises(LogFull):
        publish(log, A, f'"{"x" * 60_000}"')
    with pytest.raises(LogFull):
        log.make(A, PAYER, PLAIN, [NewMessage(f'["","{"x" * 60_000}"]')])
    with pytest.raises(TopicConflict):
        publish(log, A, 1, producer=Producer("p", 0, 1))
    assert state(client, ns) == {} and log.show("o", ["a"]) == [None]


def test_message_that_can_never_fit_costs_no_history(log):
    log._settings = structs.replace(log._settings, max_topic_bytes=65536)
    publish(log, A, *range(50), make=TopicConfig(history=50))
    with pytest.raises(LogFull):
        publish(log, A, f'"{"x" * 60_000}"')
    assert datas(read(log, "a")) == [str(n) for n in range(50)]
    publish(log, A, f'"{"x" * 25_000}"')
    assert datas(read(log, "a"))[-1].startswith('"xxx')


def test_producers_that_leave_no_room_cost_no_history(log):
    log._settings = structs.replace(log._settings, max_topic_bytes=65536)
    for n in range(100):
        publish(log, A, n, make=TopicConfig(history=20), producer=Producer(f"{n:0100d}", 0, 0))
    with pytest.raises(LogFull):
        publish(log, A, f'"{"x" * 20_000}"')
    assert datas(read(log, "a")) == [str(n) for n in range(80, 100)]


def test_shorter_history_counts_at_once(log):
    implicit = TopicConfig(history=1000, implicit=True)
    publish(log, A, *range(10), make=implicit)
    (before,) = log.show("o", ["a"])
    log.make(A, PAYER, TopicConfig(history=3))
    (after,) = log.show("o", ["a"])
    assert (after.messages, after.top) == (3, before.top) and after.bytes < before.bytes
    assert datas(read(log, "a")) == ["7", "8", "9"]
    assert read(log, "a", start=Start("after", before.born)).reset == "history"


def test_topic_that_was_asked_for_as_it_is_stays_so(log):
    config = TopicConfig(history=5)
    publish(log, A, 1, make=TopicConfig(history=5, implicit=True))
    assert not log.make(A, PAYER, config).is_new
    with pytest.raises(TopicConflict):
        log.make(A, PAYER, TopicConfig(history=6))
    assert not log.make(A, PAYER, config).is_new


def test_full_memory_of_valkey_keeps_no_half(log, client, ns):
    """Reads and deletions still work, and whatever is refused leaves nothing."""
    publish(log, A, *(f'"{"x" * 1000}"' for _ in range(100)))
    before = state(client, ns)
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    try:
        with pytest.raises(ValkeyError):
            publish(log, A, *range(1000))
        with pytest.raises(ValkeyError):
            publish(log, B, *range(10))
        with pytest.raises(ValkeyError):
            log.make(B, PAYER, PLAIN)
        assert state(client, ns) == before
        assert len(read(log, "a").messages) == 100
        log.delete(A)
    finally:
        client.config_set("maxmemory", 0)
    publish(log, A, 1)
    assert datas(read(log, "a")) == ["1"]


def test_many_messages_in_one_request(log, client, ns):
    subscription = log.subscribe()
    next(subscription)
    published = publish(log, A, *(NewMessage(f'["",{n}]', str(n)) for n in range(10_000)))
    assert published.positions == list(range(published.positions[0], published.positions[0] + 10_000))
    (live,) = next(subscription)
    assert (live.first, len(live.entries)) == (published.positions[0], 10_000)
    subscription.close()
    again = publish(log, A, *(NewMessage(f'["",{n}]', str(n)) for n in range(10_000)))
    assert again.positions == published.positions
    found, after = [], 0
    while (page := read(log, "a", start=Start("after", after), max_bytes=20_000)).messages:
        found += datas(page)
        after = page.position
    assert found == [str(n) for n in range(10_000)]
    publish(log, A, 1, make=None)
    assert log.make(B, PAYER, TopicConfig(history=10), [NewMessage(f'["",{n}]', str(n)) for n in range(10_000)]).is_new
    assert datas(read(log, "b")) == [str(n) for n in range(9990, 10_000)]
    log.delete(A)
    log.delete(B)
    assert client.get(ns + "topic_bytes") == b"0"


def test_read_takes_no_more_than_asked_for(log):
    """However large the messages are: they are in Valkey's memory once more while a script reads them."""
    for n in range(8):
        publish(log, A, f'"{n}{"x" * 1_000_000}"')
    for start in (Start("after", 0), Start("since", 0)):
        page = read(log, "a", start=start)
        assert (len(page.messages), page.more) == (1, True)
    after, found = 0, []
    while (page := read(log, "a", start=Start("after", after))).messages:
        found += [data[1] for data in datas(page)]
        after = page.position
    assert found == list("01234567")


@pytest.mark.parametrize("kind", ["topic", "messages", "message_ids", "producers"])
def test_foreign_key_affects_no_other_topic(log, client, ns, kind):
    publish(log, A, NewMessage('["",1]', "id"), make=TopicConfig(ttl_s=1000), producer=Producer("p", 0, 0))
    client.set(f"{ns}{kind}:{A}", "something else")
    client.zadd(f"{ns}topics_due", {A: 1})
    with pytest.raises(valkey.ResponseError, match="WRONGTYPE"):
        publish(log, A, NewMessage('["",2]', "other"), producer=Producer("p", 0, 1))
    for _ in range(2):
        publish(log, B, 1)
    assert datas(read(log, "b"))[-1] == "1"


def test_closed_or_expired_topics_do_not_stop_publishers(log, client, ns):
    """One that had a time to live, and has none any more."""
    publish(log, A, 1, make=TopicConfig(ttl_s=1, implicit=True))
    assert not log.make(A, PAYER, TopicConfig()).is_new
    assert not client.zscore(f"{ns}topics_due", A)
    client.zadd(f"{ns}topics_due", {A: 1})
    publish(log, B, 1)
    assert client.zscore(f"{ns}topics_due", A) is None and log.show("o", ["a"])[0].config.ttl_s is None


def test_deleted_topic_that_has_forks_is_not_kept_alive(log, client, ns):
    publish(log, A, 1, make=TopicConfig(ttl_s=1000))
    log.make(B, PAYER, TopicConfig(fork="a"), source=A, anchor=log.show("o", ["a"])[0].top)
    log.delete(A)
    assert datas(read(log, "a")) == []
    assert client.zscore(f"{ns}topics_due", A) is None


def test_producers_numbers_are_exact(log):
    """Those of JavaScript's integers."""
    high = MAX_INTEGER
    publish(log, A, 1, producer=Producer("p", high - 1, 0))
    publish(log, A, 2, producer=Producer("p", high - 1, 1))
    with pytest.raises(ProducerFenced) as fenced:
        publish(log, A, 3, producer=Producer("p", high - 2, 0))
    assert fenced.value.headers["Producer-Epoch"] == str(high - 1)
    assert publish(log, A, 3, producer=Producer("p", high - 1, 1)).seq == 1
    closing = Producer("p", high, 0)
    assert publish(log, A, 4, producer=closing, closes=True).is_closed
    assert publish(log, A, 4, producer=closing, closes=True).seq == 0


def test_producers_count_as_room(log, client, ns):
    for n in range(10):
        publish(log, A, 1, make=TopicConfig(history=1), producer=Producer(f"producer {n}", 0, 0))
    (known,) = log.show("o", ["a"])
    assert known.bytes > 10 * len("producer 0")
    assert int(client.get(ns + "topic_bytes")) == known.bytes + 1024
    log.delete(A)
    assert client.get(ns + "topic_bytes") == b"0"


def test_sequences_are_in_order_of_their_bytes(log):
    publish(log, A, 1, sequence="B")
    publish(log, A, 2, sequence="a")
    publish(log, A, 3, sequence="a ")
    for sequence in ("a ", "a", "Z", "B"):
        with pytest.raises(SequenceConflict):
            publish(log, A, 4, sequence=sequence)
    publish(log, A, 4, sequence="é")


def test_lost_log_is_noticed_although_it_has_new_messages(log, client):
    before = publish(log, A, 1).top
    client.flushall()
    publish(log, A, 2)
    page = read(log, "a", start=Start("after", before))
    assert (page.reset, datas(page)) == ("lost", ["2"])
    assert read(log, "a", start=Start("after", page.position)).reset == ""


def test_fork_says_what_its_source_had_forgotten(log):
    first = publish(log, A, 1, make=TopicConfig(history=2)).top
    top = publish(log, A, 2, 3, 4).top
    log.make(B, PAYER, TopicConfig(fork="a"), source=A, anchor=top)
    page = read(log, "b", start=Start("after", first))
    assert (page.reset, datas(page)) == ("history", ["3", "4"])
    assert read(log, "b", start=Start("after", top - 1)).reset == ""


def test_ends_of_others_topics_reset_nobody_who_has_read_them(log):
    """More than are remembered."""
    publish(log, A, 1)
    at = publish(log, "o:x/0", 1).top
    log.delete("o:x/0")
    assert read(log, "x/*", start=Start("after", at)).reset == ""
    assert read(log, "x/*", start=Start("after", at - 1)).reset == "deleted"
    assert read(log, "x/0", start=Start("after", at)).reset == "deleted"
    for n in range(1, 1100):
        publish(log, f"o:x/{n}", 1)
        log.delete(f"o:x/{n}")
    assert read(log, "a", start=Start("after", at)).reset == ""
    assert read(log, "a", "b", start=Start("after", at)).reset == "deleted"
    assert read(log, "**", start=Start("after", at)).reset == "deleted"


def test_names_of_deleted_topics_are_bounded(log, client, ns):
    for n in range(1005):
        publish(log, f"o:x/{n}", 1)
        log.delete(f"o:x/{n}")
    assert client.zcard(ns + "gone_topics:o") == client.hlen(ns + "gone_tops:o") == 1000


def test_follower_of_very_many_topics_is_told(log, client):
    """A new one has missed nothing; it is greeted by the newest."""
    with client.pipeline(transaction=False):
        for n in range(1005):
            publish(log, f"o:{n}", n, make=TopicConfig(history=1, latest=True))
    page = read(log, "**", start=Start("now"))
    assert page.reset == "" and len(page.messages) == 1000
    assert read(log, "**", start=Start("after", 1)).reset in ("lost", "too_many_topics")
    first = log.show("o", ["0"])[0].top
    assert read(log, "**", start=Start("since", 0)).reset == "too_many_topics"
    assert read(log, "**", start=Start("after", first + 10**12)).reset == "lost"


def test_page_does_not_end_between_equal_positions(log):
    """A fork's messages have those of its source's."""
    publish(log, A, *range(5))
    log.make(B, PAYER, TopicConfig(fork="a"), source=A, anchor=log.show("o", ["a"])[0].top)
    after, found = 0, []
    while (page := read(log, "**", start=Start("after", after), max_bytes=1)).messages:
        found += [(message.topic, message.data) for message in page.messages]
        after = page.position
    assert found == [(name, str(n).encode()) for n in range(5) for name in "ab"]


def test_expired_messages_do_not_hide_later_ones(log):
    publish(log, A, *(NewMessage(f'["",{n}]', expires_ms=1) for n in range(2000)), 1)
    after, found, pages = 0, [], 0
    while not found:
        page = read(log, "a", start=Start("after", after))
        assert page.position > after and pages < 10
        after, found, pages = page.position, datas(page), pages + 1
    assert (found, page.reset) == (["1"], "") and pages > 1


@hypothesis_settings(max_examples=60)
@given(
    patterns=st.lists(
        st.lists(SEGMENTS | st.sampled_from(["*", "**"]), min_size=1, max_size=5)
        .filter(lambda segments: segments.count("**") <= 1)
        .map("/".join),
        min_size=1,
        max_size=5,
    ),
    names=st.lists(st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join), min_size=1, max_size=20),
)
def test_patterns_of_lua_match_the_same_names(settings, patterns, names):
    web_log = WebLog(settings)
    web_log._client.flushall()
    log = TopicLog(settings, web_log)
    for name in set(names):
        publish(log, f"o:{name}", 1)
    for pattern in patterns:
        found = [message.topic for message in read(log, pattern, start=Start("since", 0)).messages]
        assert sorted(found) == sorted(name for name in set(names) if regex(pattern).fullmatch(name))
    web_log.close()


def test_last_messages_of_many_topics_are_shared_out(log):
    for topic in range(10):
        publish(log, f"o:t/{topic}", *range(1000))
    page = read(log, "t/*", start=Start("last", 1000))
    assert Counter(message.topic for message in page.messages) == {f"t/{topic}": 500 for topic in range(10)}
    for topic in range(10):
        publish(log, f"o:large/{topic}", *(f'"{"x" * 100_000}"' for _ in range(10)))
    page = read(log, "large/*", start=Start("last", 10), max_bytes=64 << 20)
    assert {message.topic for message in page.messages} == {f"large/{topic}" for topic in range(10)}
    assert sum(len(message.data) for message in page.messages) < 10 << 20


def test_a_thousand_producers_are_known(log, client, ns):
    publish(log, A, 0, make=TopicConfig(history=5))
    for number in range(1010):
        publish(log, A, number, producer=Producer(f"p{number}", 0, 0))
    assert client.hlen(f"{ns}producers:{A}") == client.zcard(f"{ns}producers_heard:{A}") == 1000
    # One of the last still is, and the first is new.
    assert publish(log, A, 1, producer=Producer("p1009", 0, 0)).seq == 0
    assert publish(log, A, 1, producer=Producer("p0", 0, 0)).seq is None
    log.delete(A)
    assert client.get(ns + "topic_bytes") == b"0" and not client.exists(f"{ns}producers_heard:{A}")


def test_what_is_too_large_to_copy_is_not_forked(log):
    publish(log, A, *range(10_000))
    publish(log, A, 1, make=None)
    with pytest.raises(InvalidInput, match=r"10,000 messages"):
        log.make(B, PAYER, TopicConfig(fork="a"), source=A, anchor=log.show("o", ["a"])[0].top)


def test_messages_of_a_request_that_makes_a_topic_anew_are_not_dropped(log):
    publish(log, A, 1, make=TopicConfig(implicit=True))
    with pytest.raises(TopicConflict):
        log.make(A, PAYER, TopicConfig(), [NewMessage('["",2]')])
    assert not log.make(A, PAYER, TopicConfig()).is_new


def test_owners_share_no_topics(log):
    publish(log, A, 1)
    publish(log, "p:a", 2)
    mine, theirs = (log.read([(Subscription(owner, ("**",)), Start("since", 0))], 100)[0] for owner in "op")
    assert (datas(mine), datas(theirs)) == (["1"], ["2"])
    log.delete(A)
    page = log.read([(Subscription("p", ("**",)), Start("after", theirs.messages[0].position))], 100)[0]
    assert page.reset == "" and log.names("p", "") == ["a"]
    with pytest.raises(UnknownTopic):
        log.delete(A)
