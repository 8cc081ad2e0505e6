"""The chat model tokenizes long prompts beside the event loop, for generations and for checks; short ones at once."""

import asyncio
import os
import threading
import warnings

import pytest

from everstream import contract
from everstream.errors import InvalidInput
from everstream.lanes import Lanes
from everstream.settings import REPO_ROOT

WAIT_S = 60
LONG = {"prompt": "x" * 100_000, "raw": True}


class HeldTokenizer:
    """In the place of a slow one, which is not ours: it waits until it is released."""

    def __init__(self):
        self.released = threading.Event()
        self.begun = []

    def encode(self, text):
        self.begun.append(threading.get_ident())
        if len(text) > 1000:
            self.released.wait(WAIT_S)
        return [0] * len(text)


@pytest.fixture(scope="module")
def chat_model():
    """Of this repository's `app.py`, without vLLM's warnings and what it leaves in the environment of later tests."""
    environ = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield contract.load_model(REPO_ROOT)
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture
def model(chat_model):
    chat_model.tokenizer, chat_model.max_model_len, chat_model.lanes = HeldTokenizer(), 100, Lanes()
    yield chat_model
    chat_model.tokenizer.released.set()


def run(test):
    async def main():
        async with asyncio.timeout(WAIT_S):
            await test()

    asyncio.run(main())


def working_on(model, inputs):
    """A generation and a question."""
    return [asyncio.create_task(model.infer(inputs, None)), asyncio.create_task(model.check(inputs))]


def test_long_prompts_hold_up_neither_the_event_loop_nor_short_prompts(model):
    async def test():
        long = working_on(model, LONG)
        await asyncio.sleep(0)
        with pytest.raises(InvalidInput, match="the prompt has 200 tokens"):
            await model.infer({"prompt": "x" * 200, "raw": True}, None)
        assert model.tokenizer.begun[-1] == threading.get_ident()
        assert not any(task.done() for task in long)
        model.tokenizer.released.set()
        for task in long:
            with pytest.raises(InvalidInput, match="the prompt has 100000 tokens"):
                await task

    run(test)


def test_a_generation_that_is_stopped_while_it_is_tokenized_ends_at_once(model):
    async def test():
        tasks = [task for _ in range(10) for task in working_on(model, LONG)]
        while not model.tokenizer.begun:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        begun = len(model.tokenizer.begun)
        model.tokenizer.released.set()
        with pytest.raises(InvalidInput):
            await model.check(LONG)
        assert len(model.tokenizer.begun) == begun + 1

    run(test)
