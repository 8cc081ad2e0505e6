"""One generation in an engine, up to its writer; nothing is written to a log."""

import asyncio

import pytest

from everstream.contract.loader import Declaration
from everstream.engine.appender import Appender
from everstream.engine.coalescer import FlushClocks
from everstream.engine.context import EngineContext
from everstream.engine.generation_task import GenerationTask
from everstream.engine.meter import EngineMeter
from everstream.log.engine_log import Claim
from everstream.log.entries import decode_lines, text_of
from everstream.log.histograms import LOG_APPEND, Histogram
from everstream.log.records import Job
from everstream.settings import load_settings
from harness.folders import adapted


class RaisingWithHeldOutputs:
    async def infer(self, inputs, stream_output_handler):
        for text in "abc":
            stream_output_handler.send_streamed_output({"text": text}, resume=[ord(text)])
        raise ValueError("no more")


def test_held_outputs_survive_a_model_error():
    async def main():
        appender, model = Appender(None, 10, Histogram(LOG_APPEND)), adapted(RaisingWithHeldOutputs())
        context = EngineContext(load_settings({}), model, None, appender, asyncio.Lock(), FlushClocks(), EngineMeter())
        task = GenerationTask(Claim("1-0", "generation", Job({}, flush_ms=1000), False), context, alone=False)
        ended = task.start()
        async with asyncio.timeout(60):
            await appender._work.wait()
            while not task.ended:
                await asyncio.sleep(0)
            writer = task._writer
            entries = decode_lines(writer.take().lines, 1)
            writer.settle()
            await ended
        return entries

    *outputs, end = asyncio.run(main())
    # Two entries, or three if a flush period began between two outputs.
    assert "".join(text_of(output.data) for output in outputs) == "abc"
    assert end.event == "failed" and end.data.startswith(b'{"code":"model_error"')


class Swallowing:
    """Takes its cancellation for an ordinary error, as a bare `except` does."""

    async def infer(self, inputs, stream_output_handler):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return


class Replacing:
    async def infer(self, inputs, stream_output_handler):
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("in the clean-up")


@pytest.mark.parametrize("model", [Swallowing(), Replacing()])
def test_stopped_generation_ends_whatever_the_model_does_with_its_cancellation(model):
    async def main():
        appender = Appender(None, 10, Histogram(LOG_APPEND))
        loaded = adapted(model, Declaration(is_concurrent=True))
        context = EngineContext(load_settings({}), loaded, None, appender, asyncio.Lock(), FlushClocks(), EngineMeter())
        task = GenerationTask(Claim("1-0", "generation", Job({}), False), context, alone=False)
        ended = task.start()
        async with asyncio.timeout(60):
            while task._handler is None:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.break_off("cancelled", {"reason": "requested"})
            await appender._work.wait()
            [entry] = decode_lines(task._writer.take().lines, 1)
            task._writer.settle()
            await ended
        return entry.event, entry.data

    assert asyncio.run(main()) == ("cancelled", b'{"reason":"requested"}')
