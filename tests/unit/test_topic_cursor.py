"""The cursor of topics under any interleaving: it hands out the log's messages after its start, in order, once."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from everstream.log.topic_records import Message, Start, TopicPage
from everstream.web.topic_cursor import TopicCursor


def message(position):
    return Message("a", position, "", b"1")


def page(positions, position, *, more):
    return TopicPage([message(each) for each in positions], position, "", more=more, is_closed=False)


class Reading(RuleBasedStateMachine):
    """A growing log, whose clock jumps; its channel, which is in order, late, and loses messages, as the follower finds
    out at the next one; and a reader of both."""

    @initialize(length=st.integers(0, 5), back=st.integers(0, 5), bound=st.integers(0, 6), from_now=st.booleans())
    def start(self, length, back, bound, from_now):
        self.log = [3 * n for n in range(1, length + 1)]
        self.clock = 3 * length
        after = self.log[-1 - back] if back < length else 0
        self.first = None if from_now else after
        self.cursor = TopicCursor(Start("now") if from_now else Start("after", after), bound)
        self.on_the_way, self.has_lost, self.delivered = [], False, []
        self.start_of_read = self.answer = None

    @rule(count=st.integers(1, 3), jump=st.integers(1, 4))
    def publish(self, count, jump):
        """All messages of a batch are in the log before they are sent."""
        first = self.clock + jump
        batch = list(range(first, first + count))
        self.clock = batch[-1]
        self.log += batch
        self.on_the_way.append(batch)

    @rule(jump=st.integers(1, 4))
    def publish_to_another_topic(self, jump):
        self.clock += jump

    @precondition(lambda self: self.on_the_way)
    @rule(is_lost=st.booleans(), can_write=st.booleans())
    def hear(self, is_lost, can_write):
        batch = self.on_the_way.pop(0)
        if is_lost:
            self.has_lost = True
        elif self.has_lost:
            self.notice()
        elif can_write and self.cursor.skip(batch[0], batch[-1]):
            self.delivered += batch
        else:
            self.cursor.offer([message(each) for each in batch])

    @rule()
    def notice(self):
        """The next message, or a new subscription, shows that one was lost. Or there was none: no harm is done."""
        self.has_lost = False
        self.cursor.mark_behind()

    @rule()
    def take(self):
        if not self.cursor.reading and (found := self.cursor.take()):
            self.delivered += [each.position for each in found.messages]

    @precondition(lambda self: self.cursor.behind and not self.cursor.reading)
    @rule()
    def ask_for_a_read(self):
        self.take()
        if self.cursor.behind:
            self.cursor.await_read()

    @precondition(lambda self: self.cursor.reading and self.start_of_read is None)
    @rule()
    def begin_read(self):
        self.start_of_read = self.cursor.begin_read()

    @precondition(lambda self: self.start_of_read is not None and self.answer is None)
    @rule(most=st.integers(1, 4))
    def log_is_read(self, most):
        start = self.start_of_read
        if start.kind == "now":
            self.first = self.clock if self.first is None else self.first
            self.answer = page([], self.clock, more=False)
            return
        following = [each for each in self.log if each > start.number]
        more = len(following) > most
        position = following[most - 1] if more else self.clock
        self.answer = page(following[:most], position, more=more)

    @precondition(lambda self: self.answer is not None)
    @rule()
    def end_read(self):
        self.cursor.end_read(self.answer)
        self.start_of_read = self.answer = None

    @precondition(lambda self: self.start_of_read is not None)
    @rule()
    def read_fails(self):
        if self.start_of_read.kind == "now":
            self.first = None
        self.cursor.abort_read()
        self.start_of_read = self.answer = None

    @property
    def wanted(self):
        return [] if self.first is None else [each for each in self.log if each > self.first]

    @invariant()
    def messages_are_those_of_the_log(self):
        if hasattr(self, "log"):
            assert self.delivered == self.wanted[: len(self.delivered)]
            assert [each for each in self.wanted if each <= self.cursor.position] == self.delivered or self.cursor._page

    def teardown(self):
        """In the end all is heard, and all is read."""
        if not hasattr(self, "log"):
            return
        if self.answer is not None:
            self.end_read()
        elif self.cursor.reading:
            self.start_of_read = self.start_of_read or self.cursor.begin_read()
            self.log_is_read(3)
            self.end_read()
        while self.on_the_way:
            self.hear(is_lost=False, can_write=True)
        self.notice()
        for _ in range(len(self.log) + 2):
            self.ask_for_a_read_and_get_it()
        assert not self.cursor.behind
        assert self.delivered == self.wanted

    def ask_for_a_read_and_get_it(self):
        self.take()
        if not self.cursor.behind:
            return
        self.cursor.await_read()
        self.begin_read()
        self.log_is_read(2)
        self.end_read()
        self.take()


TestReading = Reading.TestCase


def test_read_that_ends_takes_the_place_of_what_was_buffered():
    cursor = TopicCursor(Start("after", 0), 100)
    cursor.begin_read()
    cursor.offer([message(1)])
    cursor.offer([message(2)])
    cursor.end_read(page([1], 1, more=False))
    assert [each.position for each in cursor.take().messages] == [1]
    assert [each.position for each in cursor.take().messages] == [2]
    assert cursor.take() is None


def test_more_than_the_bound_is_read_again_from_the_log():
    cursor = TopicCursor(Start("after", 0), 2)
    cursor.begin_read()
    cursor.end_read(page([], 0, more=False))
    cursor.take()
    assert not cursor.behind
    cursor.offer([message(1), message(2), message(3)])
    assert cursor.behind and cursor.take() is None
    assert cursor.next_read == Start("after", 0)


def test_greeting_is_asked_for_again_until_it_was_read():
    cursor = TopicCursor(Start("last", 3), 100)
    assert cursor.begin_read() == Start("last", 3)
    cursor.abort_read()
    assert cursor.begin_read() == Start("last", 3)
    cursor.end_read(page([4, 5], 7, more=False))
    cursor.take()
    assert cursor.next_read == Start("after", 7)
