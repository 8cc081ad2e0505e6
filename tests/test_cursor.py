"""The reader's state machine under any interleaving: what it hands out is the log after its start, in order, once."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from everstream.cursor import Cursor
from everstream.log import Entry


def entry(n):
    return Entry(n, "", b"{}")


class Reading(RuleBasedStateMachine):
    """A log that grows, a channel that loses, repeats and reorders, and a reader of both."""

    @initialize(after=st.integers(0, 5), bound=st.integers(1, 4), length=st.integers(0, 8))
    def start(self, after, bound, length):
        self.top = max(after, length)
        self.after = after
        self.handed = []
        self.cursor = Cursor(after, bound)
        self.read_up_to = None

    @rule(count=st.integers(1, 4), heard=st.booleans())
    def append(self, count, heard):
        """Entries are in the log before they are live; a live message may be lost."""
        first, self.top = self.top + 1, self.top + count
        if heard:
            for n in range(first, self.top + 1):
                self.cursor.offer(entry(n))

    @precondition(lambda self: self.top > 0)
    @rule(data=st.data())
    def repeat_an_old_message(self, data):
        self.cursor.offer(entry(data.draw(st.integers(1, self.top))))

    @rule()
    def take(self):
        if self.read_up_to is None:
            self.handed += self.cursor.take()

    @precondition(lambda self: self.read_up_to is None)
    @rule(count=st.integers(1, 3))
    def begin_read(self, count):
        """The server answers from the log as it stands now; the answer arrives later."""
        self.cursor.begin_read()
        self.count = count
        self.read_up_to = min(self.top, self.cursor.last + count)

    @precondition(lambda self: self.read_up_to is not None)
    @rule()
    def end_read(self):
        found = [entry(n) for n in range(self.cursor.last + 1, self.read_up_to + 1)]
        self.handed += self.cursor.end_read(found, to_the_end=len(found) < self.count)
        self.read_up_to = None

    @precondition(lambda self: self.read_up_to is not None)
    @rule()
    def read_fails(self):
        self.handed += self.cursor.end_read([], to_the_end=False)
        self.read_up_to = None
        assert self.cursor.behind

    @invariant()
    def handed_out_is_a_prefix_of_the_log_once_and_in_order(self):
        if hasattr(self, "cursor"):
            numbers = [each.n for each in self.handed]
            assert numbers == list(range(self.after + 1, self.after + 1 + len(numbers)))
            assert self.cursor.last == self.after + len(numbers) <= self.top

    def teardown(self):
        """Whatever was lost on the way: reading the log to its end leaves nothing out."""
        if not hasattr(self, "cursor"):
            return
        if self.read_up_to is not None:
            self.end_read()
        self.cursor.behind = True
        for _ in range(self.top + 1):
            self.begin_read(3)
            self.end_read()
        assert not self.cursor.behind
        assert self.cursor.last == self.top


TestReading = Reading.TestCase


@given(st.lists(st.integers(1, 30), max_size=60), st.integers(1, 5))
def test_memory_is_bounded(numbers, bound):
    cursor = Cursor(0, bound)
    for n in numbers:
        cursor.offer(entry(n))
        assert len(cursor._live) <= bound


def test_a_reader_that_missed_nothing_goes_live_without_reading_again():
    cursor = Cursor(0, 10)
    cursor.begin_read()
    cursor.offer(entry(2))
    assert [each.n for each in cursor.end_read([entry(1), entry(2)], to_the_end=True)] == [1, 2]
    cursor.offer(entry(3))
    assert not cursor.behind
    assert [each.n for each in cursor.take()] == [3]


def test_a_subscription_that_comes_back_during_a_read_makes_for_another_read():
    cursor = Cursor(0, 10)
    cursor.begin_read()
    cursor.behind = True
    cursor.end_read([entry(1)], to_the_end=True)
    assert cursor.behind


def test_a_gap_sends_the_reader_back_to_the_log():
    cursor = Cursor(0, 10)
    cursor.begin_read()
    cursor.end_read([entry(1)], to_the_end=True)
    cursor.offer(entry(3))
    assert cursor.behind
    assert cursor.take() == []
