"""Topics in a real Valkey, against a model: whatever is published, trimmed, closed, deleted, forked and lost, followers
get each message once, in order, or are told that they may have missed some; and bytes are counted exactly.

There are no threads, and no waiting: each step is a rule below, so a failure shrinks to a short list.
"""

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from everstream.errors import EverstreamError, InvalidInput, LogFull
from everstream.log.topic_errors import (
    ContentTypeConflict,
    ProducerFenced,
    ProducerGap,
    TopicClosed,
    TopicConflict,
    TopicGone,
    UnknownTopic,
)
from everstream.log.topic_log import TopicLog
from everstream.log.topic_names import is_pattern, regex
from everstream.log.topic_records import (
    JSON,
    Append,
    NewMessage,
    Payer,
    Producer,
    Start,
    Subscription,
    TopicConfig,
    topic_id,
)
from everstream.log.web_log import WebLog
from harness.stack import Stack

MOST = 65536
OWN = {"rich": None, "poor": 20_000}
"""The limits of those who pay."""
OWNER = "o"
TOPIC_BYTES, MESSAGE_BYTES, PRODUCER_BYTES = 1024, 64, 64
TRIMMED_AT_ONCE = 16
PAGE_BYTES = 200
EXPIRED_MS = 1
NAMES = st.sampled_from(["a", "b", "a/x", "c"])
PATTERNS = st.sampled_from([("a",), ("b",), ("**",), ("a", "b"), ("a/**", "c"), ("*",)])
PAYERS = st.sampled_from(list(OWN))
BATCHES = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 1, 2000, 9000]),
        st.sampled_from(["", "", "", "1", "2", "3"]),
        st.sampled_from([0, 0, 0, 0, EXPIRED_MS]),
    ),
    max_size=4,
)
PRODUCERS = st.none() | st.builds(Producer, st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3))
OPTIONS = st.fixed_dictionaries(
    {
        "closes": st.sampled_from([False, False, False, False, True]),
        "producer": PRODUCERS,
        "is_json": st.sampled_from([True] * 9 + [False]),
    }
)
CONFIGS = st.builds(
    TopicConfig,
    history=st.sampled_from([None, None, 1, 3, 20]),
    ttl_s=st.sampled_from([None, 1000]),
    implicit=st.booleans(),
) | st.just(TopicConfig(history=1, latest=True))


@dataclass
class Kept:
    position: int
    entry: str
    id: str
    expires_ms: int
    is_trimmed: bool = False

    @property
    def bytes(self):
        return len(self.entry) + len(self.id) + MESSAGE_BYTES


@dataclass
class Topic:
    """`all`: its messages, also those that were trimmed."""

    name: str
    client: str
    config: TopicConfig
    all: list[Kept] = field(default_factory=list)
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_by: str | None = None
    forks: int = 0
    source: "Topic | None" = None
    is_deleted: bool = False

    @property
    def kept(self):
        return [each for each in self.all if not each.is_trimmed]

    @property
    def bytes(self):
        if self.is_deleted:
            return 0
        return self.freeable + sum(len(each) + PRODUCER_BYTES for each in self.producers)

    @property
    def freeable(self):
        """By forgetting messages."""
        return sum(each.bytes for each in self.kept)


@dataclass
class Reader:
    patterns: tuple[str, ...]
    position: int
    seen: list[int] = field(default_factory=list)
    has_lost_log: bool = False

    def wants(self, name):
        return any(regex(each).fullmatch(name) if is_pattern(each) else each == name for each in self.patterns)


class Topics(RuleBasedStateMachine):
    stack = None

    @initialize()
    def start(self):
        self.web = WebLog(self.stack.settings)
        self.web._client.flushall()
        self.log = TopicLog(self.stack.settings, self.web)
        self.topics = {}
        self.gone = []
        """Topics that were deleted, and when."""
        self.readers = []
        self.top = 0
        self.is_ahead = False
        self.numbers = itertools.count(1)
        self.last_append = None

    # What the model expects.

    def used(self, client=None):
        there = {id(each): each for each in self.topics.values()}.values()
        return sum(each.bytes + TOPIC_BYTES for each in there if client in (None, each.client))

    def has_room(self, client, more, publisher=None):
        """A topic takes the room of whoever made it; the limit is the publisher's."""
        return self.used(client) + more <= min(MOST - self.used() - more, OWN[publisher or client] or MOST)

    def make_room(self, topic, more, publisher):
        """Trims, as the log does. `topic`: it has no message of the request yet."""
        if not self.has_room(topic.client, more - (topic.freeable if topic.config.history else 0), publisher):
            return False
        while not self.has_room(topic.client, more, publisher):
            if not topic.config.history or not topic.kept:
                return False
            self.trim(topic, min(TRIMMED_AT_ONCE, len(topic.kept)))
        return True

    def trim(self, topic, count):
        for each in topic.kept[:count]:
            each.is_trimmed = True

    def refusal(self, topic, append):
        """Why a request is not appended; None: it is. 'duplicate', 'closed before': it was."""
        if topic.is_deleted:
            return TopicGone
        if producer := append.producer:
            return self.producer_refusal(topic, producer)
        if topic.closed_by is not None:
            return "closed before" if append.closes and not append.messages else TopicClosed
        if append.messages and append.content_type != JSON:
            return ContentTypeConflict
        return None

    def producer_refusal(self, topic, producer):
        epoch, last = topic.producers.get(producer.id, (None, None))
        if epoch is not None and producer.epoch < epoch:
            return ProducerFenced
        if topic.closed_by is not None:
            return "duplicate" if topic.closed_by == str(producer) else TopicClosed
        if epoch is None or producer.epoch > epoch:
            if producer.seq == 0:
                return None
            return ProducerGap if epoch is None else InvalidInput
        if producer.seq <= last:
            return "duplicate"
        return ProducerGap if producer.seq > last + 1 else None

    def note(self, *positions):
        """Positions are given in ascending order, whatever the clock says."""
        for position in positions:
            assert position > self.top
            self.top = position

    def note_clock(self):
        """Things other than messages take positions, too."""
        self.top = int(self.web._client.hget(self.log._keys.ns + "topics_clock", "last") or 0)

    # Publishers.

    @rule(name=NAMES, client=PAYERS, batch=BATCHES, config=CONFIGS | st.none(), options=OPTIONS)
    def publish(self, name, client, batch, config, options):
        messages = [NewMessage(self.entry(size), each, expires_ms) for size, each, expires_ms in batch]
        kind = JSON if options["is_json"] or options["producer"] else "text/plain"
        append = Append(topic_id(OWNER, name), messages, kind, config, options["closes"], options["producer"])
        self.last_append = (append, client)
        self.append(append, client)

    @precondition(lambda self: self.last_append)
    @rule()
    def repeat_a_request_whose_answer_was_lost(self):
        append, client = self.last_append
        topic = self.topics.get(append.topic.partition(":")[2])
        before = len(topic.kept) if topic else None
        self.append(append, client)
        if append.producer and topic and not topic.is_deleted:
            assert len(topic.kept) == before or topic.producers.get(append.producer.id) == append.producer[1:]

    def entry(self, size):
        return f'["","{next(self.numbers)}{"x" * size}"]'

    def append(self, append, client):
        name = append.topic.partition(":")[2]
        topic = self.topics.get(name)
        if topic is None and append.make is None:
            self.expect(UnknownTopic, append, client)
            return
        made = topic is None
        topic = topic or Topic(name, client, append.make)
        why_not = self.refusal(topic, append)
        if isinstance(why_not, type):
            self.expect(why_not, append, client)
            return
        if why_not:
            published = self.log.publish(append, Payer(client, OWN[client]))
            assert published.positions == [] and published.is_closed == (topic.closed_by is not None)
            return
        self.extend(topic, append, client, made=made)

    def expect(self, why_not, append, client):
        with pytest.raises(EverstreamError) as refused:
            self.log.publish(append, Payer(client, OWN[client]))
        assert type(refused.value) is why_not

    def extend(self, topic, append, client, *, made):
        known = {each.id: each.position for each in topic.kept if each.id}
        new = {}
        for n, message in enumerate(append.messages):
            if message.id not in known and message.id not in {each.id for each in new.values() if each.id}:
                new[n] = message
        more = sum(Kept(0, *message).bytes for message in new.values()) + (TOPIC_BYTES if made else 0)
        producer = append.producer
        if producer and producer.id not in topic.producers:
            more += len(producer.id) + PRODUCER_BYTES
        if not self.make_room(topic, more, client):
            self.expect(LogFull, append, client)
            return
        published = self.log.publish(append, Payer(client, OWN[client]))
        self.topics[topic.name] = topic
        assert published.is_new == made
        positions = [published.positions[n] for n in new]
        self.note(*positions)
        topic.all += [Kept(position, *message) for position, message in zip(positions, new.values(), strict=True)]
        by_id = known | {each.id: each.position for each in topic.all[len(topic.all) - len(new) :]}
        for position, message in zip(published.positions, append.messages, strict=True):
            assert not message.id or position == by_id[message.id]
        if producer:
            topic.producers[producer.id] = producer[1:]
        if append.closes:
            topic.closed_by = str(producer) if producer else ""
        if topic.config.history:
            self.trim(topic, max(0, len(topic.kept) - topic.config.history))
        self.note_clock()

    @rule(name=NAMES, client=PAYERS, config=CONFIGS, batch=BATCHES, closes=st.booleans())
    def make(self, name, client, config, batch, closes):
        messages = [NewMessage(self.entry(size), "", expires_ms) for size, _, expires_ms in batch]
        topic, there = self.topics.get(name), None
        payer, options = Payer(client, OWN[client]), {"closes": closes}
        if topic:
            there = topic.config.fields() | {"implicit": ""} == config.fields() | {"implicit": ""}
            is_same = there and (topic.closed_by is not None) == closes and not topic.source
            adopts = topic.config.implicit and not closes and not topic.source
            # Messages for a topic that others have begun would be dropped.
            drops = topic.config.implicit and messages
            if topic.is_deleted or drops or not (is_same or adopts):
                with pytest.raises(TopicConflict):
                    self.log.make(topic_id(OWNER, name), payer, config, messages, **options)
            else:
                assert not self.log.make(topic_id(OWNER, name), payer, config, messages, **options).is_new
                # From now on it counts as made by request, also if nothing changes.
                was_implicit = topic.config.implicit
                topic.config = (
                    config if not is_same else replace(config, implicit=False) if was_implicit else topic.config
                )
                if topic.config.history:
                    self.trim(topic, max(0, len(topic.kept) - topic.config.history))
            self.note_clock()
            return
        more = TOPIC_BYTES + sum(Kept(0, *message).bytes for message in messages)
        if not self.has_room(client, more):
            with pytest.raises(LogFull):
                self.log.make(topic_id(OWNER, name), payer, config, messages, **options)
            return
        made = self.log.make(topic_id(OWNER, name), payer, config, messages, **options)
        assert made.is_new and made.is_closed == closes
        topic = self.topics[name] = Topic(name, client, config, closed_by="" if closes else None)
        self.take_new(topic, messages)

    def take_new(self, topic, messages):
        """Their positions, which the answer doesn't have."""
        found = self.stored(topic)[len(topic.kept) :]
        assert len(found) == min(len(messages), topic.config.history or len(messages))
        # Those of one request are in a row.
        positions = [found[-1] - n for n in reversed(range(len(messages)))] if found else []
        assert positions[len(positions) - len(found) :] == found
        self.note(*positions)
        topic.all += [Kept(position, *message) for position, message in zip(positions, messages, strict=True)]
        self.trim(topic, len(messages) - len(found))
        self.note_clock()

    def stored(self, topic):
        key = f"{self.log._keys.ns}messages:{topic_id(OWNER, topic.name)}"
        return [int(each[0].partition(b"-")[0]) for each in self.web._client.xrange(key)]

    @precondition(lambda self: self.topics)
    @rule(data=st.data(), name=NAMES, client=PAYERS, size=st.sampled_from([0, 0, 5]))
    def fork(self, data, name, client, size):
        source = data.draw(st.sampled_from(list(self.topics.values())))
        anchor = data.draw(st.sampled_from([0, *(each.position for each in source.all)]))
        partial = NewMessage(self.entry(size)) if size else None
        given = (topic_id(OWNER, name), Payer(client, OWN[client]), TopicConfig(fork=f"{source.name} {anchor}"))
        options = {"source": topic_id(OWNER, source.name), "anchor": anchor, "partial": partial}
        # A source that was deleted keeps no messages that a fork could have.
        copied = [] if source.is_deleted else [each for each in source.all if each.position <= anchor]
        kept_bytes = sum(each.bytes for each in copied if not each.is_trimmed)
        more = TOPIC_BYTES + kept_bytes + (Kept(0, *partial).bytes if partial else 0)
        there = self.topics.get(name)
        if there or source.is_deleted or not self.has_room(client, more):
            self.fork_is_not_made(there, source, given, options)
            return
        assert self.log.make(*given, **options).is_new
        config = TopicConfig(ttl_s=source.config.ttl_s, fork=given[2].fork)
        topic = Topic(name, client, config, [Kept(**vars(each)) for each in copied], source=source)
        source.forks += 1
        self.topics[name] = topic
        self.take_new(topic, [partial] if partial else [])

    def fork_is_not_made(self, there, source, given, options):
        is_same = there and (there.config.fork, there.config.ttl_s) == (given[2].fork, source.config.ttl_s)
        if is_same and not there.is_deleted and there.closed_by is None:
            assert not self.log.make(*given, **options).is_new
            return
        with pytest.raises((TopicConflict, LogFull)) as refused:
            self.log.make(*given, **options)
        assert isinstance(refused.value, LogFull) == (there is None and not source.is_deleted)

    # Ends.

    @precondition(lambda self: self.topics)
    @rule(data=st.data(), expires=st.booleans())
    def topic_ends(self, data, expires):
        """It is deleted, or nobody has used it for its time to live."""
        topic = data.draw(st.sampled_from(list(self.topics.values())))
        key, ns = topic_id(OWNER, topic.name), self.log._keys.ns
        if topic.is_deleted:
            with pytest.raises(TopicGone):
                self.log.delete(key)
            return
        if expires and topic.config.ttl_s:
            self.web._client.hset(f"{ns}topic:{key}", "due_ms", 1)
            self.web._client.zadd(f"{ns}topics_due", {key: 1})
            self.log.show(OWNER, [topic.name])
        else:
            self.log.delete(key)
        self.note_clock()
        self.gone.append((self.top, topic.name, topic.all))
        topic.all, topic.is_deleted = [], True
        self.release(topic)

    def release(self, topic):
        """A name stays blocked while there are forks."""
        if topic.is_deleted and topic.forks == 0:
            del self.topics[topic.name]
            if topic.source:
                topic.source.forks -= 1
                self.release(topic.source)

    @rule()
    def clock_is_set_back(self):
        """As if it had been ahead until now."""
        if self.top:
            self.is_ahead = True
            self.web._client.hincrby(self.log._keys.ns + "topics_clock", "last", 5_000_000)
            self.note_clock()

    @precondition(lambda self: not self.is_ahead)
    @rule(is_sure=st.sampled_from([False, False, False, True]))
    def log_is_lost(self, is_sure):
        if is_sure:
            self.web._client.flushall()
            self.topics, self.gone, self.top, self.last_append = {}, [], 0, None
            for reader in self.readers:
                reader.has_lost_log = reader.position > 0

    @rule(names=st.lists(NAMES))
    def topics_are_shown(self, names):
        self.log.show(OWNER, names)

    # Followers.

    @precondition(lambda self: len(self.readers) < 4)
    @rule(patterns=PATTERNS, from_beginning=st.booleans())
    def follow(self, patterns, from_beginning):
        start = Start("after", 0) if from_beginning else Start("now")
        page = self.log.read([(Subscription(OWNER, patterns), start)], PAGE_BYTES)[0]
        assert page.reset == ""
        reader = Reader(patterns, 0 if from_beginning else page.position)
        self.readers.append(reader)
        if from_beginning:
            self.got(reader, page)

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def read(self, data):
        reader = data.draw(st.sampled_from(self.readers))
        self.got(reader, self.log.read([self.request(reader)], PAGE_BYTES)[0])

    def request(self, reader):
        return Subscription(OWNER, reader.patterns), Start("after", reader.position)

    @precondition(lambda self: self.readers)
    @rule()
    def read_at_once(self):
        pages = self.log.read([self.request(each) for each in self.readers], PAGE_BYTES)
        for reader, page in zip(self.readers, pages, strict=True):
            self.got(reader, page)

    def got(self, reader, page):
        """Each message that there was after the reader's position is in the page, or there is a reset."""
        after, found = reader.position, [(each.position, each.topic) for each in page.messages]
        assert found == sorted(set(found))
        there = [topic for topic in self.topics.values() if reader.wants(topic.name)]
        wanted = {(each.position, topic.name): each for topic in there for each in topic.all if each.position > after}
        assert set(found) <= wanted.keys()
        assert all(not wanted[at].expires_ms and not wanted[at].is_trimmed for at in found)
        due = {
            at for at, each in wanted.items() if at[0] <= page.position and not each.expires_ms and not each.is_trimmed
        }
        assert due == set(found)
        assert page.more or page.position == max(self.top, 0)
        self.check_reset(reader, page, there)
        reader.has_lost_log = reader.has_lost_log and page.reset == ""
        if not page.reset:
            reader.seen += [at for at, _ in found]
            assert page.position >= reader.position
        reader.position = page.position
        if len(there) == 1 and reader.patterns == (there[0].name,) and not page.more and not there[0].is_deleted:
            assert page.is_closed == (there[0].closed_by is not None)
        else:
            assert not page.is_closed

    def check_reset(self, reader, page, there):
        after = reader.position
        if after == 0:
            assert page.reset == ""
            return
        if reader.has_lost_log:
            assert page.reset == "lost"
            return
        is_trimmed = any(
            each.position > after and each.is_trimmed
            for topic in there
            for each in topic.all
            if not topic.config.latest
        )
        ended = [(name, messages) for at, name, messages in self.gone if at > after and reader.wants(name)]
        is_gone = any(
            name in reader.patterns or any(each.position > after for each in messages) for name, messages in ended
        )
        assert page.reset == ("history" if is_trimmed else "deleted" if is_gone else "")

    # Invariants.

    @invariant()
    def bytes_are_counted(self):
        if not hasattr(self, "log"):
            return
        client, ns = self.web._client, self.log._keys.ns
        assert int(client.get(ns + "topic_bytes") or 0) == self.used()
        found = {
            name.decode(): score for name, score in client.zrange(ns + "topic_client_bytes", 0, -1, withscores=True)
        }
        assert found == {name: self.used(name) for name in OWN if self.used(name)}

    @invariant()
    def topics_are_as_they_should_be(self):
        if not hasattr(self, "log"):
            return
        names = sorted(name for name, topic in self.topics.items() if not topic.is_deleted)
        assert sorted(self.log.names(OWNER, "")) == names
        for known in self.log.show(OWNER, names):
            topic = self.topics[known.name]
            assert (known.bytes, known.messages) == (topic.bytes, len(topic.kept))
            assert self.stored(topic) == [each.position for each in topic.kept]
            assert known.is_closed == (topic.closed_by is not None)

    def teardown(self):
        """In the end all is deleted, and nothing is left."""
        if not hasattr(self, "log"):
            return
        for name in [name for name, topic in self.topics.items() if not topic.is_deleted]:
            self.log.delete(topic_id(OWNER, name))
        client, ns = self.web._client, self.log._keys.ns
        assert int(client.get(ns + "topic_bytes") or 0) == 0
        left = {key.decode().removeprefix(ns).partition(":")[0] for key in client.keys("*")}
        assert left <= {"counters", "topic_bytes", "topics_clock", "gone_topics", "gone_tops"}
        self.web.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(tmp_path_factory.mktemp("topic_protocol"), EVERSTREAM_MAX_TOPIC_BYTES=str(MOST))
    try:
        stack.start_valkey()
        yield stack
    finally:
        stack.stop()


def test_topics(stack):
    Topics.stack = stack
    run_state_machine_as_test(
        Topics, settings=hypothesis_settings(max_examples=100, stateful_step_count=50, report_multiple_bugs=False)
    )
