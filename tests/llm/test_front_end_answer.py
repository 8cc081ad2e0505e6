"""Answers of vLLM's front end, whose lines come from a stand-in."""

import asyncio
import json
import os
import warnings
from types import SimpleNamespace

import pytest

REQUEST = SimpleNamespace(stream=True)


class FrontEnd:
    """Stands in for vLLM's: it streams a completion that ends with this reason, if any."""

    def __init__(self, finish_reason):
        self.finish_reason = finish_reason
        self.is_closed = False

    async def answer(self, request):
        return self._lines()

    async def _lines(self):
        try:
            for text, reason in (("a", None), ("b", self.finish_reason)):
                choice = {"index": 0, "text": text, "finish_reason": reason}
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.is_closed = True


class Handler:
    """Stands in for the engine's: it takes outputs until the log is slow."""

    def __init__(self, is_slow=False):
        self.is_slow = is_slow
        self.texts, self.end = [], None
        self.waits = asyncio.Event()

    def send_streamed_output(self, output):
        self.texts.append(output["text"])

    def finalise_streamed_output(self, **end):
        self.end = end

    async def drain(self):
        if self.is_slow:
            self.waits.set()
            await asyncio.Event().wait()


@pytest.fixture(scope="module")
def answer():
    """Without vLLM's warnings; the environment is restored afterwards."""
    environ = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from everstream.llm.front_end_answer import FrontEndAnswer
    yield lambda front_end, handler: FrontEndAnswer(front_end, REQUEST, handler).run()
    os.environ.clear()
    os.environ.update(environ)


def test_stream_becomes_outputs(answer):
    async def test():
        handler = Handler()
        await answer(FrontEnd("length"), handler)
        assert (handler.texts, handler.end["finish_reason"]) == (["a", "b"], "length")

    asyncio.run(test())


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_answer_that_vllm_broke_off_does_not_look_finished(answer, reason):
    from vllm.v1.engine.exceptions import EngineGenerateError

    async def test():
        handler = Handler()
        with pytest.raises(EngineGenerateError, match=reason):
            await answer(FrontEnd(reason), handler)
        assert handler.end is None

    asyncio.run(test())


def test_stop_while_the_log_is_slow_stops_vllm(answer):
    async def test():
        front_end, handler = FrontEnd("stop"), Handler(is_slow=True)
        task = asyncio.create_task(answer(front_end, handler))
        async with asyncio.timeout(60):
            await handler.waits.wait()
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled() and front_end.is_closed

    asyncio.run(test())
