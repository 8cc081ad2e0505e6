"""The chat model: vLLM's AsyncLLM under the Inferless contract. The engine process loads it through `app.py`.

In: inputs that `input_schema.py` has checked. Out: text, through the handler (`answer`).
"""

from functools import partial
from typing import Any

from vllm.exceptions import VLLMClientError

from everstream.contract.inputs import text_bytes
from everstream.contract.model import CacheUse
from everstream.contract.output_handler import StreamOutputHandler
from everstream.llm import vllm_start
from everstream.llm.answer import NOT_RESUMABLE, UNWATCHED_TOKENS, Answer
from everstream.llm.front_end import FrontEnd, Request, prompt_of
from everstream.llm.front_end_answer import FrontEndAnswer
from everstream.llm.prompt_bound import prompt_bound
from everstream.llm.refusals import refusals_named
from everstream.llm.tokenizer_pool import TokenizerPool
from everstream.llm.vllm_seam import Vllm
from everstream.llm.vllm_stats import CacheStats
from everstream.settings import load_settings


class InferlessPythonModel:
    async def initialize(self) -> None:
        settings = load_settings()
        args = vllm_start.serve_args(settings)
        llm = vllm_start.start(args)
        self.vllm = Vllm(llm)
        self._cache_stats = CacheStats(llm)
        await self.vllm.start()
        self.front_end = await FrontEnd.start(llm, args)
        self.max_model_len = self.vllm.max_model_len
        self.prompt_bound = prompt_bound(self.vllm.tokenizer, self.max_model_len)
        self.tokenizer_pool = TokenizerPool()

    async def infer(self, inputs: dict[str, Any], stream_output_handler: StreamOutputHandler) -> None:
        request = self.front_end.request(inputs)
        if self.is_simple(request):
            await self.answer_simply(inputs, request, stream_output_handler)
        elif stream_output_handler.has_delivered:
            stream_output_handler.fail("not_resumable", NOT_RESUMABLE.format("choices, tools or constraints"))
        else:
            answer = FrontEndAnswer(self.front_end, request, stream_output_handler)
            await self.vllm.guarded(answer.run())

    async def answer_simply(self, inputs: dict[str, Any], request: Request, handler: StreamOutputHandler) -> None:
        prompt = await self.tokenized(inputs, request)
        tokens = prompt["prompt_token_ids"]
        interval = 1 if request.stream else UNWATCHED_TOKENS
        answer = Answer(self.vllm, self.front_end.sampling(request, len(tokens)), tokens, handler, interval)
        if not answer.replay():
            rest = {**prompt, "prompt_token_ids": tokens + answer.token_ids}
            # Errors of other classes may be the handler's.
            with refusals_named(prompt_of(request), (VLLMClientError,)):
                await self.vllm.generate(rest, answer.sampling(), answer, request.priority)

    def finalize(self) -> None:
        self.vllm.shutdown()

    @property
    def has_died(self) -> bool:
        return self.vllm.has_died

    @property
    def death(self) -> str:
        return self.vllm.death

    @property
    def running_requests(self) -> int | None:
        return self.vllm.running_requests

    @property
    def cache_use(self) -> CacheUse | None:
        return self._cache_stats.use

    async def check(self, inputs: dict[str, Any]) -> None:
        """Raise InvalidInput if vLLM can't take these inputs, for example because the prompt is too long."""
        request = self.front_end.request(inputs)
        self.front_end.check(request, await self.prompts(inputs, request))

    async def tokenize(self, inputs: dict[str, Any]) -> list[int]:
        """The token ids of the prompt, with its chat template."""
        (prompt,) = await self.prompts(inputs, self.front_end.request(inputs))
        return list(prompt["prompt_token_ids"])

    def detokenize(self, inputs: dict[str, Any]) -> str:
        return str(self.vllm.tokenizer.decode(inputs["tokens"]))

    async def prompts(self, inputs: dict[str, Any], request: Request) -> list[dict[str, Any]]:
        """Any request's prompts in vLLM's format. Raises InvalidInput."""
        if self.is_simple(request):
            return [await self.tokenized(inputs, request)]
        return await self.front_end.rendered(request)

    def is_simple(self, request: Request) -> bool:
        return self.front_end.is_simple(request) and self.vllm.can_detokenize(request)

    async def tokenized(self, inputs: dict[str, Any], request: Request) -> dict[str, Any]:
        """A simple request's prompt in vLLM's format, without blocking the event loop and its streams."""
        return await self.tokenizer_pool.run(text_bytes(inputs), partial(self.front_end.render, request))
