"""The chat model: vLLM's AsyncLLM under the Inferless contract. The engine process loads it through `app.py`.

In: inputs that `input_schema.py` has checked. Out: text, through the handler (`answer`).
"""

from functools import partial
from typing import Any

from everstream.contract.inputs import text_bytes
from everstream.contract.output_handler import StreamOutputHandler
from everstream.errors import InvalidInput
from everstream.llm import vllm_start
from everstream.llm.answer import Answer
from everstream.llm.messages import as_messages
from everstream.llm.prompt_bound import prompt_bound
from everstream.llm.tokenizer_pool import TokenizerPool
from everstream.llm.vllm_seam import Vllm
from everstream.settings import load_settings

# What a model's generation_config.json may suggest. Presence and frequency penalties are left out: they count only the
# answer's tokens, and after an engine's death the first of those are part of vLLM's prompt.
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class InferlessPythonModel:
    async def initialize(self) -> None:
        self.vllm = Vllm(vllm_start.start(load_settings()))
        await self.vllm.start()
        self.tokenizer = self.vllm.tokenizer
        self.max_model_len = self.vllm.max_model_len
        suggested = self.vllm.suggested_sampling
        self.sampling_defaults = {name: suggested[name] for name in SAMPLING_DEFAULTS if name in suggested}
        self.prompt_bound = prompt_bound(self.tokenizer, self.max_model_len)
        self.tokenizer_pool = TokenizerPool()

    async def infer(self, inputs: dict[str, Any], stream_output_handler: StreamOutputHandler) -> None:
        prompt = await self.tokenized(inputs)
        answer = Answer(self.vllm, self.sampling_defaults, prompt, inputs, stream_output_handler)
        if answer.replay():
            return
        await self.vllm.generate(prompt + answer.token_ids, answer.sampling(), answer)

    def finalize(self) -> None:
        self.vllm.shutdown()

    @property
    def has_died(self) -> bool:
        return self.vllm.has_died

    @property
    def running_requests(self) -> int | None:
        return self.vllm.running_requests

    async def check(self, inputs: dict[str, Any]) -> None:
        """Raise InvalidInput if the prompt does not fit into the model's context."""
        await self.tokenized(inputs)

    async def tokenized(self, inputs: dict[str, Any]) -> list[int]:
        """Like `prompt_tokens`, without blocking the event loop and its streams."""
        return await self.tokenizer_pool.run(text_bytes(inputs), partial(self.prompt_tokens, inputs))

    def prompt_tokens(self, inputs: dict[str, Any]) -> list[int]:
        """Apply the chat template and tokenize. Raises InvalidInput if no room is left for an answer."""
        if inputs.get("raw"):
            tokens: list[int] = self.tokenizer.encode(inputs["prompt"])
        else:
            tokens = self.tokenizer.apply_chat_template(
                as_messages(inputs), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        if len(tokens) >= self.max_model_len:
            raise InvalidInput(
                f"the prompt has {len(tokens)} tokens{'' if inputs.get('raw') else ' with its chat template'}; "
                f"the model's context is {self.max_model_len} tokens, and at least one must be left for the answer",
                param="messages" if "messages" in inputs else "prompt",
                code="context_length_exceeded",
            )
        return tokens
