"""The cursor under any interleaving: it hands out the log after its start, in order, once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from everstream.log.entries import Entry
from everstream.web.cursor import Cursor


def entry(n):
    return Entry(n, "", b"{}")


def numbers(entries):
    return [each.n for each in entries]


class Reading(RuleBasedStateMachine):
    """A growing log, a channel that loses, repeats and reorders messages, and a reader of both."""

    @initialize(after=st.integers(0, 5), bound=st.integers(1, 9), length=st.integers(0, 8))
    def start(self, after, bound, length):
        self.top = max(after, length)
        self.after = after
        self.delivered = []
        self.cursor = Cursor(after, bound)
        self.read_up_to = None

    @rule(count=st.integers(1, 4), published=st.booleans())
    def append(self, count, published):
        """Entries are in the log before they are published; a published message may be lost."""
        first, self.top = self.top + 1, self.top + count
        if published:
            for n in range(first, self.top + 1):
                self.cursor.offer(entry(n))

    @precondition(lambda self: self.top > 0)
    @rule(data=st.data())
    def repeat_an_old_message(self, data):
        self.cursor.offer(entry(data.draw(st.integers(1, self.top))))

    @rule()
    def take(self):
        if self.read_up_to is None:
            self.delivered += self.cursor.take()

    @precondition(lambda self: self.read_up_to is None)
    @rule(count=st.integers(1, 3))
    def begin_read(self, count):
        """The server answers from the log as it stands now; the answer arrives later."""
        self.read_from = self.cursor.begin_read()
        self.count = count
        self.read_up_to = min(self.top, self.read_from + count)

    @precondition(lambda self: self.read_up_to is not None)
    @rule()
    def end_read(self):
        found = [entry(n) for n in range(self.read_from + 1, self.read_up_to + 1)]
        self.cursor.end_read(found, to_the_end=len(found) < self.count)
        self.read_up_to = None

    @precondition(lambda self: self.read_up_to is not None)
    @rule()
    def read_fails(self):
        self.cursor.end_read([], to_the_end=False)
        self.read_up_to = None
        assert self.cursor.behind

    @invariant()
    def delivered_entries_are_a_prefix_of_the_log(self):
        if hasattr(self, "cursor"):
            assert numbers(self.delivered) == list(range(self.after + 1, self.after + 1 + len(self.delivered)))
            assert self.cursor.last == self.after + len(self.delivered) <= self.top

    def teardown(self):
        """Whatever was lost, reading the log to its end delivers everything."""
        if not hasattr(self, "cursor"):
            return
        if self.read_up_to is not None:
            self.end_read()
        self.take()
        self.cursor.mark_behind()
        for _ in range(self.top + 1):
            self.begin_read(3)
            self.end_read()
            self.take()
        assert not self.cursor.behind
        assert self.cursor.last == self.top


TestReading = Reading.TestCase


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), max_size=60), st.integers(1, 20))
def test_memory_is_bounded(offered, bound):
    cursor = Cursor(0, bound)
    for n, size in offered:
        cursor.offer(Entry(n, "", b"x" * size))
        assert sum(len(each.data) for each in cursor._live) == cursor._live_bytes <= bound


def test_reader_without_a_gap_goes_live_without_another_read():
    cursor = Cursor(0, 100)
    cursor.begin_read()
    cursor.offer(entry(2))
    cursor.end_read([entry(1), entry(2)], to_the_end=True)
    assert numbers(cursor.take()) == [1, 2]
    cursor.offer(entry(3))
    assert numbers(cursor.take()) == [3]
    assert not cursor.behind
    assert cursor.gaps == 0


def caught_up(last=0, bound=100):
    """A cursor that has everything up to `last` and is live."""
    cursor = Cursor(last, bound)
    cursor.begin_read()
    cursor.end_read([], to_the_end=True)
    assert cursor.take() == []
    return cursor


def test_delivered_entries_are_not_taken_again():
    cursor = caught_up(last=2)
    for n in (1, 2, 3, 3, 2):
        cursor.offer(entry(n))
    assert numbers(cursor.take()) == [3]
    assert not cursor.behind


def test_gap_among_buffered_entries_is_noticed_at_once():
    cursor = caught_up()
    cursor.offer(entry(1))
    cursor.offer(entry(3))
    assert (cursor.behind, cursor.gaps) == (True, 1)
    # Entries after the gap wait for the read that fills it.
    cursor.begin_read()
    cursor.end_read([entry(1), entry(2)], to_the_end=True)
    assert numbers(cursor.take()) == [1, 2, 3]


def test_live_entries_during_a_read_may_start_anywhere():
    cursor = Cursor(0, 100)
    cursor.begin_read()
    cursor.offer(entry(5))
    assert (cursor.behind, cursor.gaps) == (False, 0)
    cursor.end_read([entry(n) for n in range(1, 5)], to_the_end=True)
    cursor.offer(entry(6))
    assert numbers(cursor.take()) == [1, 2, 3, 4, 5, 6]
    assert cursor.gaps == 0


def behind(cursor):
    cursor.mark_behind()


def waiting(cursor):
    cursor.offer(entry(1))


def read(cursor):
    cursor.begin_read()
    cursor.end_read([entry(1)], to_the_end=True)


@pytest.mark.parametrize("state", [behind, Cursor.begin_read, waiting, read])
def test_entries_cannot_be_skipped_unless_caught_up(state):
    cursor = caught_up()
    state(cursor)
    assert not cursor.skip(1, 2)
    assert cursor.last == 0


def test_only_the_next_entries_can_be_skipped():
    cursor = caught_up(last=2)
    assert not cursor.skip(2, 3)
    assert not cursor.skip(4, 4)
    assert cursor.skip(3, 5)
    assert cursor.last == 5
    cursor.offer(entry(6))
    assert numbers(cursor.take()) == [6]


def test_resubscription_during_a_read_causes_another_read():
    cursor = Cursor(0, 100)
    cursor.begin_read()
    cursor.mark_behind()
    cursor.end_read([entry(1)], to_the_end=True)
    assert cursor.behind


@pytest.mark.parametrize("taken_first", [True, False])
def test_gap_sends_the_reader_back_to_the_log_and_is_counted(taken_first):
    cursor = Cursor(0, 100)
    cursor.begin_read()
    cursor.end_read([entry(1)], to_the_end=True)
    if taken_first:
        assert numbers(cursor.take()) == [1]
    cursor.offer(entry(3))
    assert numbers(cursor.take()) == ([] if taken_first else [1])
    assert cursor.behind
    assert cursor.gaps == 1
    cursor.begin_read()
    cursor.offer(entry(4))
    cursor.end_read([entry(2), entry(3)], to_the_end=True)
    assert numbers(cursor.take()) == [2, 3, 4]
    assert not cursor.behind


def test_slow_reader_goes_back_to_the_log_without_counting_a_gap():
    cursor = Cursor(0, 3)
    cursor.begin_read()
    cursor.end_read([], to_the_end=True)
    cursor.take()
    for n in (1, 2, 3):
        cursor.offer(entry(n))
    assert cursor.behind
    assert cursor.gaps == 0
    cursor.begin_read()
    cursor.end_read([entry(1), entry(2), entry(3)], to_the_end=True)
    assert numbers(cursor.take()) == [1, 2, 3]


def test_entry_larger_than_the_bound_is_read_from_the_log():
    cursor = Cursor(0, 3)
    cursor.begin_read()
    cursor.end_read([], to_the_end=True)
    cursor.take()
    cursor.offer(Entry(1, "", b"large"))
    assert cursor.behind
    assert cursor.take() == []
