"""The inner functions that run for every token, under pytest-benchmark: `make hot` compares with the last saved run.

In `make test` each runs once, as a test that it still does what the benchmark believes.
"""

import asyncio
import json

import msgspec
import pytest

from everstream import contract, log, openai, sse
from everstream.appender import Appender, Writer
from everstream.cursor import Cursor
from everstream.engine_log import Batch, _pack
from everstream.follower import Live

STREAMS = 64
GENERATIONS = [f"{n:032x}" for n in range(STREAMS)]
ENTRY = log.encode_entry("", {"text": " The"})
KNOWN = log.Generation(GENERATIONS[0], "open", "model", 0, 1_700_000_000)
MESSAGE = b"[" + b",".join(b'["%b",7,[%b]]' % (name.encode(), ENTRY) for name in GENERATIONS) + b"]"


def test_encode_output(benchmark):
    """From a model's output to a writer: what `send_streamed_output` does for each token."""

    async def main():
        writer = Writer("", 1, lambda: None, lambda _: None)
        handler = contract.StreamOutputHandler(writer, [], [], 1 << 20)
        benchmark(lambda: handler.send_streamed_output({"text": " The"}, resume=[464]))
        return writer.take()

    batch = asyncio.run(main())
    assert set(batch.entries) == {(ENTRY, b"[464]")}


def test_append_pack(benchmark):
    """One commit of a step of 64 streams, as it goes to Valkey."""
    batches = [Batch(name, 7, [(ENTRY, b"[464]")], "", 1000) for name in GENERATIONS]
    packed = benchmark(lambda: _pack(batches))
    assert msgspec.msgpack.decode(packed)[0] == [GENERATIONS[0], 7, "", 1000, [ENTRY.decode(), "[464]"]]


def test_append_gather(benchmark):
    """64 writers are given an entry each, emptied into a commit, and settled."""
    appender = Appender(None, 10)
    writers = [appender.writer(name, 1, lambda _: None) for name in GENERATIONS]

    def step():
        for writer in writers:
            writer.put(ENTRY, b"[464]")
        taken = [writer.take() for writer in writers]
        for writer in writers:
            writer.settle(refused=False)
        return taken

    assert len(benchmark(step)) == STREAMS


def test_decode_live(benchmark):
    """A message of 64 generations, none of which has a reader here."""
    assert len(benchmark(lambda: log.decode_live(MESSAGE))) == STREAMS


@pytest.mark.parametrize("kind", ["events", "chat"])
def test_follow_straight(benchmark, kind):
    """A token of one generation, from what was heard to what the socket is given."""
    encoder = sse.Events(GENERATIONS[0])
    if kind == "chat":
        encoder = openai.Chunks(KNOWN, is_chat=True, include_usage=False)
    (_, first, entries), *_ = log.decode_live(MESSAGE)
    chunk = benchmark(lambda: Live(first, log.split_entries(entries)).chunk(encoder))
    assert json.dumps(" The").encode() in chunk


def test_follow_cursor(benchmark):
    """The way of an entry that can't go straight."""
    cursor = Cursor(0, 1 << 20)
    cursor.end_read([], to_the_end=True)
    cursor.begin_read()
    cursor.end_read([], to_the_end=True)
    numbers = iter(range(1, 1 << 40))

    def follow():
        cursor.offer(log.decode_entry(next(numbers), ENTRY))
        return cursor.take()

    assert [entry.data for entry in benchmark(follow)] == [b'{"text":" The"}']


def test_encode_entry(benchmark):
    """What a reader that catches up costs for each entry."""
    encoder, entry = sse.Events(GENERATIONS[0]), log.decode_entry(7, ENTRY)
    assert benchmark(lambda: encoder.entry(entry)).endswith(b'data: {"text":" The"}\n\n')
