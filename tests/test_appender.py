"""A writer's state, without I/O: what is taken next, what is taken no more, and when it is over."""

import asyncio

import pytest

from everstream import log
from everstream.appender import HIGH_WATER_BYTES, Appender, Writer

ENTRY = log.encode_entry("", {"text": "a"})


class Refusals:
    count = 0

    def __call__(self, error):
        self.count += 1


@pytest.fixture
def refusals():
    return Refusals()


@pytest.fixture
def writer(refusals):
    """Of a generation with six entries."""
    return Writer("generation", 7, refusals, lambda _: None)


def test_numbers_go_on_from_batch_to_batch(writer):
    writer.put(ENTRY, b"[1]")
    writer.put(ENTRY)
    assert (writer.take().first, writer.count) == (7, 8)
    writer.put(ENTRY)
    batch = writer.take()
    assert (batch.first, batch.entries, batch.final) == (9, [(ENTRY, b"")], "")


def test_nothing_follows_the_first_end(writer):
    writer.put(ENTRY)
    writer.end("done", {})
    writer.put(ENTRY)
    writer.end("failed", {})
    batch = writer.take()
    assert [entry for entry, _ in batch.entries] == [ENTRY, log.encode_entry("done", {})]
    assert (batch.final, writer.count) == ("done", 8)


def test_it_has_room_until_much_waits_and_again_when_that_was_taken(writer):
    writer.put(b"x" * HIGH_WATER_BYTES)
    assert writer.has_room.is_set()
    writer.put(b"x")
    assert not writer.has_room.is_set()
    writer.take()
    assert not writer.has_room.is_set()
    writer.settle(refused=False)
    assert writer.has_room.is_set()


def test_it_is_finished_when_its_end_was_taken_and_not_before(writer):
    writer.put(ENTRY)
    writer.take()
    writer.end("done", {})
    writer.settle(refused=False)
    assert not writer.finished.is_set()
    writer.take()
    writer.settle(refused=False)
    assert writer.finished.is_set()


def test_a_refusal_is_told_once_and_closes_it(writer, refusals):
    for _ in range(2):
        writer.put(ENTRY)
        writer.take()
        writer.settle(refused=True)
    assert refusals.count == 1
    assert writer.closed and writer.finished.is_set() and writer.has_room.is_set()


def test_a_closed_one_hears_of_no_refusal(writer, refusals):
    writer.put(ENTRY)
    writer.take()
    writer.close()
    writer.settle(refused=True)
    assert refusals.count == 0


class KeptLog:
    """Takes every batch."""

    def __init__(self):
        self.batches = []

    async def append(self, batches):
        self.batches += batches
        return set()


def test_what_a_closed_one_gathered_is_not_appended():
    async def main():
        kept = KeptLog()
        appender = Appender(kept, lease_s=10)
        closed, open_ = (appender.writer(name, 1, lambda error: None) for name in ("closed", "open"))
        closed.put(ENTRY)
        closed.close()
        open_.end("done", {})
        running = asyncio.create_task(appender.run())
        await open_.finished.wait()
        running.cancel()
        return [batch.generation for batch in kept.batches]

    assert asyncio.run(main()) == ["open"]
