"""Which way tokens come out of vLLM is found out when the model loads, and said once where it is the slower one.

vLLM's classes are the real ones; the AsyncLLM is a stand-in that generates without a model, as `generate` is public.
"""

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest

from tests.test_vllm_seam import TEXT

pytestmark = pytest.mark.usefixtures("vllm")

SLOWER = "tokens come from AsyncLLM.generate() instead, with the same text and at more CPU for each token"


class OutputProcessor:
    def __init__(self):
        self.request_states = {}
        self.get_num_unfinished_requests = lambda: 0

    def add_request(self, request): ...


class AsyncLLM:
    """vLLM's, as far as the seam needs it. It never asks its output processor, so nothing comes on the fast way."""

    errored = False

    def __init__(self, tokenizer, dies=False):
        self._tokenizer, self._dies = tokenizer, dies
        self.model_config = SimpleNamespace(max_model_len=2048, get_diff_sampling_param=lambda: {"top_p": 0.9})
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(stream_interval=1))
        self.output_processor = OutputProcessor()

    def get_tokenizer(self):
        return self._tokenizer

    async def get_supported_tasks(self):
        return ("generate",)

    async def abort(self, request_id): ...

    async def generate(self, prompt, params, request_id):
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._dies:
            raise EngineDeadError
        tokens = self._tokenizer.encode(TEXT)[: params.max_tokens]
        for left, token in zip(reversed(range(len(tokens))), tokens, strict=True):
            completion = SimpleNamespace(token_ids=[token], finish_reason=None if left else "length")
            yield SimpleNamespace(outputs=[completion])


class Receiver:
    def __init__(self, detokenizer):
        self.detokenizer, self.text, self.ended = detokenizer, "", None

    def take(self, tokens, finish_reason):
        self.text += self.detokenizer.get_next_output_text(finish_reason is not None, True)
        self.ended = finish_reason


def started(llm):
    from everstream import vllm_seam

    made = vllm_seam.Vllm(llm)
    asyncio.run(made.start())
    return made


def assert_public(made, llm):
    """Tokens come, and vLLM is as it was."""
    from vllm import SamplingParams

    receiver = Receiver(made.detokenizer([1], None))
    asyncio.run(made.generate([1], SamplingParams(max_tokens=500), receiver))
    assert (receiver.text, receiver.ended) == (TEXT, "length")
    assert llm.output_processor.add_request.__func__ is OutputProcessor.add_request


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_vllm_that_is_known_and_does_something_else(tokenizer, caplog):
    llm = AsyncLLM(tokenizer)
    made = started(llm)
    (said,) = warnings_of(caplog)
    assert "a trial of 2 tokens failed with" in said and SLOWER in said
    assert_public(made, llm)


def test_a_module_that_is_gone(tokenizer, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.output_processor", None)
    llm = AsyncLLM(tokenizer)
    made = started(llm)
    (said,) = warnings_of(caplog)
    assert "vllm.v1.engine.output_processor" in said and SLOWER in said
    assert_public(made, llm)


def test_what_is_asked_of_vllm_beside_tokens_may_be_gone(tokenizer, caplog):
    llm = AsyncLLM(tokenizer)
    del llm.model_config.get_diff_sampling_param
    del llm.output_processor.request_states, llm.output_processor.get_num_unfinished_requests
    made = started(llm)
    (said,) = warnings_of(caplog)
    for gone in ("model_config.get_diff_sampling_param", "output_processor.get_num_unfinished_requests"):
        assert f"AsyncLLM.{gone} is gone: " in said
    assert "AsyncLLM.output_processor.request_states is gone" in said and SLOWER in said
    assert (made.suggested_sampling, made.running_requests, made.has_died) == ({}, None, False)
    assert_public(made, llm)


def test_an_engine_that_dies_meanwhile_is_not_taken_for_one_that_differs(tokenizer, caplog):
    from everstream.errors import ModelDied

    with pytest.raises(ModelDied):
        started(AsyncLLM(tokenizer, dies=True))
    assert warnings_of(caplog) == []
