"""A writer's state, without I/O: which entries it hands over, and when it is full, closed or finished."""

import asyncio

import pytest

from everstream.engine.appender import HIGH_WATER_BYTES, Appender, Writer
from everstream.log.engine_log import EMPTY, History
from everstream.log.entries import Entry, decode_lines, encode_entry
from everstream.log.histograms import LOG_APPEND, Histogram

ENTRY = encode_entry("", {"text": "a"})


class Refusals:
    count = 0

    def __call__(self, error):
        self.count += 1


@pytest.fixture
def refusals():
    return Refusals()


@pytest.fixture
def writer(refusals):
    """The writer of a generation that has six entries."""
    history = History([Entry(n, "", b"{}") for n in range(1, 7)], 100)
    return Writer("generation", lambda _: None, refusals, history)


def test_entry_numbers_continue_across_batches(writer):
    writer.put(ENTRY, b"[1]")
    writer.put(ENTRY)
    before = writer.take()
    assert (before.first, before.length, writer.count) == (7, 100 + len(before.lines), 8)
    assert before.lines == b"%b\t[1]\t7\n%b\t\t8\n" % (ENTRY, ENTRY)
    writer.put(ENTRY)
    batch = writer.take()
    assert (batch.first, batch.live, batch.final) == (9, b'["generation",9,[%b]]' % ENTRY, "")
    assert batch.length == before.length + len(batch.lines)


def test_nothing_follows_the_first_terminal_entry(writer):
    writer.put(ENTRY)
    writer.end("done", {})
    writer.put(ENTRY)
    writer.end("failed", {})
    batch = writer.take()
    assert [entry.event for entry in decode_lines(batch.lines, batch.first)] == ["", "done"]
    assert (batch.final, writer.count) == ("done", 8)


def test_writer_applies_backpressure_until_settled(writer):
    writer.put(b"x" * HIGH_WATER_BYTES)
    assert writer.writable.is_set()
    writer.put(b"x")
    assert not writer.writable.is_set()
    writer.take()
    assert not writer.writable.is_set()
    writer.settle()
    assert writer.writable.is_set()


def test_writer_is_finished_once_its_end_is_settled(writer):
    writer.put(ENTRY)
    writer.take()
    writer.end("done", {})
    writer.settle()
    assert not writer.finished.is_set()
    writer.take()
    writer.settle()
    assert writer.finished.is_set()


def test_refusal_is_reported_once_and_closes_the_writer(writer, refusals):
    for _ in range(2):
        writer.put(ENTRY)
        writer.take()
        writer.refuse()
    assert refusals.count == 1
    assert writer.closed and writer.finished.is_set() and writer.writable.is_set()


def test_closed_writer_ignores_refusals(writer, refusals):
    writer.put(ENTRY)
    writer.take()
    writer.close()
    writer.refuse()
    assert refusals.count == 0


class RecordingLog:
    """Accepts every batch."""

    def __init__(self):
        self.batches = []

    async def append(self, batches):
        self.batches += batches
        return set()


def test_entries_of_a_closed_writer_are_not_appended():
    async def main():
        log = RecordingLog()
        appender = Appender(log, 10, Histogram(LOG_APPEND))
        closed, open_ = (
            appender.open_writer(name, EMPTY, on_refused=lambda error: None) for name in ("closed", "open")
        )
        closed.put(ENTRY)
        closed.close()
        open_.end("done", {})
        running = asyncio.create_task(appender.run())
        await open_.finished.wait()
        running.cancel()
        return [batch.generation for batch in log.batches]

    assert asyncio.run(main()) == ["open"]
