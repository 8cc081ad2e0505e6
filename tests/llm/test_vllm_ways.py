"""How tokens are read from vLLM is decided when the model loads; the slower path is logged once.

vLLM's classes are real. AsyncLLM is a stand-in that generates without a model, because `generate` is public.
"""

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest

from tests.llm.test_vllm_seam import TEXT

pytestmark = pytest.mark.usefixtures("vllm")

SLOWER = "tokens come from AsyncLLM.generate() instead, with the same text but more CPU per token"


class OutputProcessor:
    def __init__(self):
        self.request_states = {}
        self.get_num_unfinished_requests = lambda: 0

    def add_request(self, request): ...

    def process_outputs(self, outputs): ...


class AsyncLLM:
    """As much of vLLM's AsyncLLM as the seam needs. It never calls its output processor, so the fast path is silent."""

    errored = False

    def __init__(self, tokenizer, dies=False):
        self._tokenizer, self._dies = tokenizer, dies
        self.model_config = SimpleNamespace(max_model_len=2048)
        self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(stream_interval=1))
        self.output_processor = OutputProcessor()
        manager = SimpleNamespace(finished_procs=lambda: {"EngineCore": -9} if self.errored else {})
        self.engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=manager))

    def get_tokenizer(self):
        return self._tokenizer

    async def get_supported_tasks(self):
        return ("generate",)

    async def abort(self, request_id): ...

    async def generate(self, prompt, params, request_id, *, priority):
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._dies:
            raise EngineDeadError
        tokens = self._tokenizer.encode(TEXT)[: params.max_tokens]
        for left, token in zip(reversed(range(len(tokens))), tokens, strict=True):
            completion = SimpleNamespace(token_ids=[token], finish_reason=None if left else "length", stop_reason=None)
            yield SimpleNamespace(outputs=[completion])


class Receiver:
    has_stop_strings = False

    def __init__(self, detokenizer):
        self.detokenizer, self.text, self.ended = detokenizer, "", None

    def take(self, tokens, finish_reason, stop_reason):
        self.text += self.detokenizer.get_next_output_text(finish_reason is not None, True)
        self.ended = finish_reason


def started_seam(llm):
    from everstream.llm import vllm_seam

    seam = vllm_seam.Vllm(llm)
    asyncio.run(seam.start())
    return seam


def assert_public(seam, llm):
    """Tokens arrive, and vLLM is left unpatched."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input

    receiver = Receiver(seam.detokenizer([1], SamplingParams()))
    asyncio.run(seam.generate(tokens_input([1]), SamplingParams(max_tokens=500), receiver))
    assert (receiver.text, receiver.ended) == (TEXT, "length")
    assert llm.output_processor.add_request.__func__ is OutputProcessor.add_request
    assert llm.output_processor.process_outputs.__func__ is OutputProcessor.process_outputs


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_known_vllm_that_behaves_differently(tokenizer, caplog):
    llm = AsyncLLM(tokenizer)
    seam = started_seam(llm)
    (warning,) = warnings_of(caplog)
    assert "a trial of 4 tokens failed with" in warning and SLOWER in warning
    assert_public(seam, llm)


def test_missing_module(tokenizer, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.output_processor", None)
    llm = AsyncLLM(tokenizer)
    seam = started_seam(llm)
    (warning,) = warnings_of(caplog)
    assert "vllm.v1.engine.output_processor" in warning and SLOWER in warning
    assert_public(seam, llm)


def test_optional_internals_may_be_missing(tokenizer, caplog):
    llm = AsyncLLM(tokenizer)
    del llm.output_processor.request_states, llm.output_processor.get_num_unfinished_requests
    seam = started_seam(llm)
    (warning,) = warnings_of(caplog)
    assert "AsyncLLM.output_processor.get_num_unfinished_requests is gone: " in warning
    assert "AsyncLLM.output_processor.request_states is gone" in warning and SLOWER in warning
    assert (seam.running_requests, seam.has_died) == (None, False)
    assert_public(seam, llm)


def test_engine_death_during_the_trial_is_not_a_difference(tokenizer, caplog):
    from everstream.errors import ModelDied

    with pytest.raises(ModelDied):
        started_seam(AsyncLLM(tokenizer, dies=True))
    assert warnings_of(caplog) == []
