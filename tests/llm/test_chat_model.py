"""The chat model tokenizes long prompts off the event loop, in generations and in checks, and short ones inline."""

import asyncio
import os
import threading
import warnings

import pytest

from everstream.contract.loader import load_folder
from everstream.errors import InvalidInput
from everstream.llm.tokenizer_pool import TokenizerPool
from everstream.settings import PROJECT_ROOT

WAIT_S = 60
LONG = {"prompt": "x" * 100_000, "raw": True}


class HeldTokenizer:
    """Stands in for a slow tokenizer, which is third-party code: it blocks until it is released."""

    def __init__(self):
        self.released = threading.Event()
        self.started = []

    def encode(self, text):
        self.started.append(threading.get_ident())
        if len(text) > 1000:
            self.released.wait(WAIT_S)
        return [0] * len(text)


@pytest.fixture(scope="module")
def chat_model():
    """The model of this repository's `app.py`, without vLLM's warnings; the environment is restored afterwards."""
    environ = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield load_folder(PROJECT_ROOT).model_class()
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture
def model(chat_model):
    chat_model.tokenizer, chat_model.max_model_len, chat_model.tokenizer_pool = HeldTokenizer(), 100, TokenizerPool()
    yield chat_model
    chat_model.tokenizer.released.set()


def run(test):
    async def main():
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(main())


def generate_and_check(model, inputs):
    """A generation and a check of the same inputs."""
    return [asyncio.create_task(model.infer(inputs, None)), asyncio.create_task(model.check(inputs))]


def test_long_prompts_delay_neither_the_event_loop_nor_short_prompts(model):
    async def test():
        long = generate_and_check(model, LONG)
        await asyncio.sleep(0)
        with pytest.raises(InvalidInput, match="the prompt has 200 tokens"):
            await model.infer({"prompt": "x" * 200, "raw": True}, None)
        assert model.tokenizer.started[-1] == threading.get_ident()
        assert not any(task.done() for task in long)
        model.tokenizer.released.set()
        for task in long:
            with pytest.raises(InvalidInput, match="the prompt has 100000 tokens"):
                await task

    run(test)


def test_generation_stopped_during_tokenization_ends_at_once(model):
    async def test():
        tasks = [task for _ in range(10) for task in generate_and_check(model, LONG)]
        while not model.tokenizer.started:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        started = len(model.tokenizer.started)
        model.tokenizer.released.set()
        with pytest.raises(InvalidInput):
            await model.check(LONG)
        assert len(model.tokenizer.started) == started + 1

    run(test)
