"""One generation in an engine, up to its writer; nothing is written to a log."""

import asyncio

from everstream.engine.appender import Appender
from everstream.engine.coalescer import FlushClocks
from everstream.engine.context import EngineContext
from everstream.engine.generation_task import GenerationTask
from everstream.log.engine_log import Claim
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
        appender, model = Appender(None, 10), adapted(RaisingWithHeldOutputs())
        context = EngineContext(load_settings({}), model, None, appender, asyncio.Lock(), FlushClocks())
        task = GenerationTask(Claim("1-0", "generation", Job({}, flush_ms=1000), False), context, alone=False)
        ended = task.start()
        async with asyncio.timeout(60):
            await appender._work.wait()
            while not task.ended:
                await asyncio.sleep(0)
            writer = task._writer
            entries = [entry for entry, _ in writer.take().entries]
            writer.settle(refused=False)
            await ended
        return entries

    *outputs, end = asyncio.run(main())
    # Two entries, or three if a flush period began between two outputs.
    assert b"".join(outputs).replace(b'"}]["",{"text":"', b"") == b'["",{"text":"abc"}]'
    assert end.startswith(b'["failed",{"code":"model_error"')
