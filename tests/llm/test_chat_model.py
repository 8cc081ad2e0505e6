"""The chat model tokenizes long prompts off the event loop, in generations and in checks, and short ones inline."""

import asyncio
import os
import threading
import warnings
from types import SimpleNamespace

import pytest

from everstream.contract.loader import load_folder
from everstream.errors import InvalidInput
from everstream.llm.tokenizer_pool import TokenizerPool
from everstream.settings import PROJECT_ROOT

WAIT_S = 60
LONG = {"prompt": "x" * 100_000, "raw": True}
CONTEXT = 100


class HeldRenderer:
    """Stands in for vLLM's tokenizing of a slow prompt: it blocks until it is released."""

    def __init__(self):
        self.released = threading.Event()
        self.started = []

    def render_cmpl(self, prompts, tokens, prompt_extras):
        self.started.append(threading.get_ident())
        length = len(prompts[0]["prompt"])
        if length > 1000:
            self.released.wait(WAIT_S)
        raise ValueError(f"the prompt has {length} tokens")


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
    from everstream.llm.front_end import FrontEnd

    config = SimpleNamespace(max_model_len=CONTEXT, is_encoder_decoder=False)
    chat_model.renderer = HeldRenderer()
    state = SimpleNamespace(
        online_renderer=SimpleNamespace(renderer=chat_model.renderer),
        openai_serving_chat=None,
        openai_serving_completion=None,
    )
    llm = SimpleNamespace(model_config=config, vllm_config=SimpleNamespace(reasoning_config=None))
    chat_model.front_end = FrontEnd(llm, state, None, ("generate",))
    chat_model.vllm = SimpleNamespace(can_detokenize=lambda request: True)
    chat_model.tokenizer_pool = TokenizerPool()
    yield chat_model
    chat_model.renderer.released.set()


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
        assert model.renderer.started[-1] == threading.get_ident()
        assert not any(task.done() for task in long)
        model.renderer.released.set()
        for task in long:
            with pytest.raises(InvalidInput, match="the prompt has 100000 tokens"):
                await task

    run(test)


def test_generation_stopped_during_tokenization_ends_at_once(model):
    async def test():
        tasks = [task for _ in range(10) for task in generate_and_check(model, LONG)]
        while not model.renderer.started:
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        started = len(model.renderer.started)
        model.renderer.released.set()
        with pytest.raises(InvalidInput):
            await model.check(LONG)
        assert len(model.renderer.started) == started + 1

    run(test)
