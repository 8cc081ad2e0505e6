"""The inner functions that run for every token, under pytest-benchmark. `make hot` compares with the last saved run.

In `make test` each runs once, to check that the benchmark still measures what it claims to.
"""

import asyncio
import json
import os
from pathlib import Path

import msgspec
import pytest
from gevent.hub import Waiter

from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.openai.chunks import ChunkEncoder, ChunkFormat
from everstream.apis.openai.responses.encoder import ResponseEncoder
from everstream.apis.openai.responses.record import NO_RECORD
from everstream.contract.output_handler import HandlerOptions, StreamOutputHandler
from everstream.engine.appender import Appender
from everstream.engine.coalescer import Coalescer, FlushClocks
from everstream.engine.context import EngineContext
from everstream.engine.generation_task import GenerationTask
from everstream.engine.meter import EngineMeter, GenerationMeter
from everstream.log.engine_log import EMPTY, Batch, Claim, _commit
from everstream.log.entries import decode_entry, decode_live, encode_entry, encode_lines, encode_live
from everstream.log.records import Generation, Job
from everstream.settings import load_settings
from everstream.web.cursor import Cursor
from everstream.web.direct_writer import DirectWriter
from everstream.web.event_encoder import EventEncoder
from everstream.web.follower import Follower
from everstream.web.live_batch import LiveBatch
from everstream.web.open_streams import OpenStreams, StreamClient
from harness.sink import WriterSink

STREAMS = 64
GENERATIONS = [f"{n:032x}" for n in range(STREAMS)]
ENTRY = encode_entry("", {"text": " The"})
LINE = encode_lines(1, [(ENTRY, b"[464]")])
KNOWN = Generation(GENERATIONS[0], "open", "model", 0, 1_700_000_000)
MESSAGE = b"[" + b",".join(b'["%b",7,[%b]]' % (name.encode(), ENTRY) for name in GENERATIONS) + b"]"


@pytest.mark.parametrize("method", ["send_streamed_output", "send_text"])
def test_encode_output(benchmark, method):
    """Model output to writer: a model's own way for each token, and the chat model's."""

    async def main():
        sink = WriterSink()
        handler = StreamOutputHandler(sink, [], [], HandlerOptions(1 << 20))
        send = getattr(handler, method)
        output = " The" if method == "send_text" else {"text": " The"}
        benchmark(lambda: send(output, [464]))
        return sink.writer.take()

    batch = asyncio.run(main())
    assert ENTRY in batch.live and batch.lines.startswith(LINE)


def test_put_output(benchmark):
    """A generation's output in the engine, from the handler to the writer."""

    async def main():
        meter, settings = EngineMeter(), load_settings({"EVERSTREAM_MAX_GENERATION_BYTES": str(256 << 20)})
        appender = Appender(None, 10, meter.appends)
        context = EngineContext(settings, None, None, appender, asyncio.Lock(), FlushClocks(), meter)
        task = GenerationTask(Claim("1-0", GENERATIONS[0], Job({}), False), context, alone=False)
        task._writer = appender.open_writer(GENERATIONS[0], EMPTY, on_refused=task._on_refused)
        task._meter = GenerationMeter(context.meter, 0.0)
        task._coalescer = Coalescer(None, task._write, 1 << 20)
        benchmark(lambda: task.put(b'{"text":" The"}', b"[464]", 1))
        return task._writer.take()

    batch = asyncio.run(main())
    assert ENTRY in batch.live and batch.lines.startswith(LINE)


def test_append_pack(benchmark):
    """Pack the commit of one step of 64 streams for Valkey."""
    batches = [Batch(name, 7, encode_live(name.encode(), 7, [ENTRY]), LINE, 1000) for name in GENERATIONS]
    message, _, log, length, lines, *_ = benchmark(lambda: _commit(batches, "log:"))
    assert (message, log, length, lines) == (MESSAGE, f"log:{GENERATIONS[0]}", 1000, LINE)


def test_append_gather(benchmark):
    """Put an entry into each of 64 writers, take them all for a commit, and settle them."""
    appender = Appender(None, 10, EngineMeter().appends)
    writers = [appender.open_writer(name, EMPTY, on_refused=lambda _: None) for name in GENERATIONS]

    def step():
        for writer in writers:
            writer.put(ENTRY, b"[464]")
        taken = [writer.take() for writer in writers]
        for writer in writers:
            writer.settle()
        return taken

    assert len(benchmark(step)) == STREAMS


def test_decode_live(benchmark):
    """Decode a message of 64 generations, none of which has a reader here."""
    assert len(benchmark(lambda: decode_live(MESSAGE))) == STREAMS


@pytest.mark.parametrize("kind", ["events", "chat"])
def test_follow_straight(benchmark, kind):
    """One generation's token, from the live message to the bytes for the socket."""
    (_, first, entries), *_ = decode_live(MESSAGE)
    encoder = encoder_of(GENERATIONS[0], kind)
    chunk = benchmark(lambda: LiveBatch(first, entries).chunk(encoder))
    assert json.dumps(" The").encode() in chunk


def encoder_of(generation, kind):
    known = msgspec.structs.replace(KNOWN, id=generation)
    return ChunkEncoder(known, ChunkFormat(is_chat=True)) if kind == "chat" else EventEncoder(generation)


@pytest.mark.parametrize("kind", ["events", "chat"])
def test_follow_message(benchmark, kind):
    """A message of 64 generations, half of which have a reader here, from the channel to the kernel."""
    settings = load_settings({})
    follower = Follower(None, settings, OpenStreams(settings))
    with Path(os.devnull).open("wb") as sink:
        readers = [waiting_reader(follower, encoder_of(each, kind), sink) for each in GENERATIONS[::2]]

        def follow():
            for reader in readers:
                reader.cursor.last = 6
            follower.dispatch(decode_live(MESSAGE))

        benchmark(follow)
    assert {(reader.cursor.last, reader.is_waiting) for reader in readers} == {(7, True)}
    assert all(reader.direct_bytes for reader in readers)


def waiting_reader(follower, encoder, sink):
    reader = follower.reader(encoder, 6, "", StreamClient(writer=DirectWriter(sink)))
    follower.register(reader)
    reader.cursor.begin_read()
    reader.cursor.end_read([], to_the_end=True)
    reader._waiter = Waiter()
    return reader


def test_message_token(benchmark):
    """The bytes of a token for a client of the Messages API."""
    encoder = MessageEncoder(KNOWN, has_ids=False)
    entry = decode_entry(2, ENTRY)
    encoder.entry(decode_entry(1, ENTRY))
    assert b'"text_delta","text":" The"' in benchmark(lambda: encoder.entry(entry))


def test_response_token(benchmark):
    """The same for a client of the Responses API, which keeps the text until the response's end."""
    encoder = ResponseEncoder(KNOWN, NO_RECORD, has_ids=False)
    entries = (decode_entry(n, ENTRY) for n in range(2, 1 << 40))
    encoder.entry(decode_entry(1, ENTRY))
    assert b'"delta":" The"' in benchmark(lambda: encoder.entry(next(entries)))


def test_follow_cursor(benchmark):
    """The path of an entry that can't be written directly."""
    cursor = Cursor(0, 1 << 20)
    cursor.end_read([], to_the_end=True)
    cursor.begin_read()
    cursor.end_read([], to_the_end=True)
    numbers = iter(range(1, 1 << 40))

    def follow():
        cursor.offer(decode_entry(next(numbers), ENTRY))
        return cursor.take()

    assert [entry.data for entry in benchmark(follow)] == [b'{"text":" The"}']


def test_encode_entry(benchmark):
    """The cost per entry of a reader that is catching up."""
    encoder, entry = EventEncoder(GENERATIONS[0]), decode_entry(7, ENTRY)
    assert benchmark(lambda: encoder.entry(entry)).endswith(b'data: {"text":" The"}\n\n')
