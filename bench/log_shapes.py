"""What an entry costs Valkey and the engine's client, in three shapes of a log. `make bench`, or `--help`.

A commit appends an entry to each of 64 logs, publishes them to two subscribers, and is on disk before it is answered.
The shapes: ours, as an engine appends; a stream per log, as one pipelined `XADD` each without any check; and a journal,
one record per commit, of which each log gets its part once every 50 commits. The shapes take turns. Prints a table,
and writes bench/results/log_shapes.json.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
from valkey import asyncio as valkey

from bench import cpu
from everstream.engine.appender import Writer
from everstream.log.engine_log import EngineLog
from everstream.log.entries import encode_entry, encode_live, join_live
from everstream.log.records import Job
from everstream.log.web_log import WebLog
from harness.stack import Stack

STREAMS = 64
NAMES = [f"{n:032x}" for n in range(STREAMS)]
ENTRY, RESUME = encode_entry("", {"text": " The"}), b"[464]"
CHECKPOINT = 50
FIGURES = ("Valkey, CPU µs per entry", "client, CPU µs per entry", "ms per commit")
RESULTS = Path(__file__).parent / "results" / "log_shapes.json"
JOURNAL = """
redis.call('XADD', KEYS[1], ARGV[1] .. '-0', 'entries', ARGV[2], 'resumes', ARGV[3])
redis.call('PUBLISH', 'live', ARGV[2])
if ARGV[4] == '' then return end
for _, part in ipairs(cmsgpack.unpack(ARGV[4])) do
  redis.call('XADD', KEYS[1] .. part[1], ARGV[1] .. '-0', 'entries', part[2], 'resumes', part[3])
end
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
"""


def message(n):
    return join_live([encode_live(name.encode(), n, [ENTRY]) for name in NAMES])


@asynccontextmanager
async def ours(settings, _client):
    """The shape that is in use."""
    web, log = WebLog(settings), EngineLog(settings, "bench")
    for name in NAMES:
        web.submit(name, Job({}), "model", "")
    writers = [Writer(name, _ignore, _ignore) for name in NAMES]

    async def commit(_n):
        for writer in writers:
            writer.put(ENTRY, RESUME)
        assert await log.append([writer.take() for writer in writers]) == set()

    yield commit
    await log.close()
    web.close()


@asynccontextmanager
async def streams(_settings, client):
    """An `XADD` each, without a check."""

    async def commit(n):
        async with client.pipeline(transaction=False) as pipe:
            for name in NAMES:
                pipe.xadd(f"stream:{name}", {"entry": ENTRY, "resume": RESUME}, id=f"{n}-0")
            pipe.publish("live", message(n))
            await pipe.execute()

    yield commit


@asynccontextmanager
async def journal(_settings, client):
    """A record for all, and at times a part of it for each."""
    script = client.register_script(JOURNAL)
    parts = [(name, *(_joined(part).decode() for part in (ENTRY, RESUME))) for name in NAMES]
    resumes = b"[%b]" % b",".join([RESUME] * STREAMS)

    async def commit(n):
        written = b"" if n % CHECKPOINT else msgspec.msgpack.encode(parts)
        await script(keys=["journal"], args=[n, message(n), resumes, written])

    yield commit


def _joined(part):
    return b"[%b]" % b",".join([part] * CHECKPOINT)


def _ignore(_):
    pass


async def measure(stack, shape, commits):
    """The figures of some commits."""
    async with AsyncExitStack() as opened:
        client = valkey.Valkey.from_url(stack.settings.log_url)
        opened.push_async_callback(client.aclose)
        await client.flushall()
        for channel in ("live", f"{{{stack.settings.namespace}}}:live"):
            for _ in range(2):
                await opened.enter_async_context(_subscriber(stack.settings.log_url, channel))
        commit = await opened.enter_async_context(shape(stack.settings, client))
        for n in range(1, CHECKPOINT + 1):
            await commit(n)
        before, own, started = cpu.cpu_s([stack.valkey.pid]), time.process_time(), time.perf_counter()
        for n in range(CHECKPOINT + 1, CHECKPOINT + commits + 1):
            await commit(n)
        seconds, own = time.perf_counter() - started, time.process_time() - own
        used = cpu.cpu_s([stack.valkey.pid])[stack.valkey.pid] - before[stack.valkey.pid]
    values = 1e6 * used / commits / STREAMS, 1e6 * own / commits / STREAMS, 1000 * seconds / commits
    return dict(zip(FIGURES, values, strict=True))


@asynccontextmanager
async def _subscriber(url, channel):
    """One that reads nothing of what it gets but what its socket takes."""
    connection = valkey.ConnectionPool.from_url(url).make_connection()
    await connection.connect()
    await connection.send_command("SUBSCRIBE", channel)
    drained = asyncio.create_task(_drain(connection))
    yield
    drained.cancel()
    await connection.disconnect(nowait=True)


async def _drain(connection):
    while True:
        await connection.read_response()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commits", type=int, default=400)
    args = parser.parse_args()
    found = {shape: [] for shape in (ours, streams, journal)}
    with tempfile.TemporaryDirectory(prefix="everstream-bench-") as folder:
        stack = Stack(Path(folder), EVERSTREAM_MAX_QUEUED=str(STREAMS))
        try:
            stack.start_valkey()
            for _ in range(args.rounds):
                for shape, figures in found.items():
                    figures.append(asyncio.run(measure(stack, shape, args.commits)))
        finally:
            stack.stop()
    medians = {
        shape.__name__: {name: statistics.median(each[name] for each in figures) for name in FIGURES}
        for shape, figures in found.items()
    }
    print(f"| log | {' | '.join(FIGURES)} |\n|---|---:|---:|---:|")
    for shape in found:
        cells = " | ".join(f"{value:.1f}" for value in medians[shape.__name__].values())
        print(f"| {shape.__name__}: {shape.__doc__} | {cells} |")
    RESULTS.write_text(json.dumps({"options": vars(args), "found": medians}, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
