"""The chat model: vLLM's AsyncLLM under the Inferless contract. The engine process loads it; see `input_schema.py`.

Detokenizing and stop strings are done on this side of vLLM: the detokenizer's state follows from the prompt and the
tokens so far, so after an engine's death it is rebuilt exactly by feeding it the delivered tokens again. That also
covers a character split over tokens, and text held back because it may begin a stop string.
"""

from functools import partial
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from everstream import fitting, vllm_start
from everstream.contract import StreamOutputHandler
from everstream.errors import InvalidInput
from everstream.inputs import text_bytes
from everstream.lanes import Lanes
from everstream.settings import load_settings
from everstream.vllm_seam import Vllm
from input_schema import parse_messages

DEFAULT_MAX_TOKENS = 1024
SAMPLING_INPUTS = ("temperature", "top_p", "top_k", "seed", "ignore_eos")
# What a model's generation_config.json may suggest. Presence and frequency penalties are left out: they count the
# answer's tokens alone, and after an engine's death the first of those are part of vLLM's prompt.
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class InferlessPythonModel:
    async def initialize(self) -> None:
        self.vllm = Vllm(vllm_start.start(load_settings()))
        await self.vllm.start()
        self.tokenizer = self.vllm.tokenizer
        self.max_model_len = self.vllm.max_model_len
        suggested = self.vllm.suggested_sampling
        self.sampling_defaults = {name: suggested[name] for name in SAMPLING_DEFAULTS if name in suggested}
        self.prompt_fit = fitting.fit(self.tokenizer, self.max_model_len)
        self.lanes = Lanes()

    async def infer(self, inputs: dict[str, Any], stream_output_handler: StreamOutputHandler) -> None:
        prompt = await self.tokenized(inputs)
        answer = Answer(self, prompt, inputs, stream_output_handler)
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
        """As `prompt_tokens`, without holding up the event loop and its streams."""
        return await self.lanes.run(text_bytes(inputs), partial(self.prompt_tokens, inputs))

    def prompt_tokens(self, inputs: dict[str, Any]) -> list[int]:
        """The chat template applied and tokenized. Raises InvalidInput where no room is left for an answer."""
        if inputs.get("raw"):
            tokens: list[int] = self.tokenizer.encode(inputs["prompt"])
        else:
            tokens = self.tokenizer.apply_chat_template(
                as_messages(inputs), add_generation_prompt=True, tokenize=True, return_dict=False
            )
        if len(tokens) >= self.max_model_len:
            raise InvalidInput(
                f"the prompt has {len(tokens)} tokens{'' if inputs.get('raw') else ' with its chat template'}; "
                f"the model's context is {self.max_model_len}, and at least one must be left for the answer",
                param="messages" if "messages" in inputs else "prompt",
                code="context_length_exceeded",
            )
        return tokens


class Answer:
    """One answer on its way: tokens in, text out to the handler."""

    def __init__(
        self, model: InferlessPythonModel, prompt: list[int], inputs: dict[str, Any], handler: StreamOutputHandler
    ) -> None:
        self.token_ids: list[int] = []
        """What was delivered before this engine had it."""
        self._sampling_defaults = model.sampling_defaults
        self._prompt_tokens = len(prompt)
        self._inputs = inputs
        self._handler = handler
        self._unsent: list[int] = []
        self._send_at = 1
        self._stream_interval = model.vllm.stream_interval
        self._max_tokens = min(inputs.get("max_tokens", DEFAULT_MAX_TOKENS), model.max_model_len - len(prompt))
        self.detokenizer = model.vllm.detokenizer(prompt, inputs.get("stop"))

    def replay(self) -> bool:
        """Take in what was delivered before an engine's death. True if that was the whole answer."""
        delivered = "".join(output["text"] for output in self._handler.delivered)
        self.token_ids = [token for tokens in self._handler.resume_states for token in tokens or []]
        self.detokenizer.update(list(self.token_ids), False)
        replayed = self.detokenizer.get_next_output_text(False, True)
        if replayed != delivered:
            raise RuntimeError("the log's tokens do not give the log's text: was the model or vLLM changed?")
        if len(self.token_ids) < self._max_tokens:
            return False
        self.take([], "length")
        return True

    def sampling(self) -> SamplingParams:
        """What vLLM is to do from here on."""
        given = {name: self._inputs[name] for name in SAMPLING_INPUTS if name in self._inputs}
        return SamplingParams(
            **(self._sampling_defaults | given),
            max_tokens=self._max_tokens - len(self.token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    def take(self, tokens: list[int], finish_reason: str | None) -> None:
        """New tokens, which the detokenizer has: send the text that is whole."""
        self._unsent += tokens
        if finish_reason is None and (len(self._unsent) < self._send_at or not self._handler.has_room):
            return
        self._send_at = self._stream_interval
        text = self.detokenizer.get_next_output_text(finish_reason is not None, True)
        # Tokens without text yet (half a character, perhaps a stop string) wait for the entry that shows them.
        if text:
            self._handler.send_streamed_output({"text": text}, resume=self._unsent)
            self._unsent = []
        if finish_reason is not None:
            self._handler.finalise_streamed_output(finish_reason, self._usage())

    def _usage(self) -> dict[str, int]:
        completion = self.detokenizer.num_output_tokens()
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
        }


def as_messages(inputs: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" in inputs:
        return parse_messages(inputs["messages"])
    system = [{"role": "system", "content": inputs["system"]}] if inputs.get("system") else []
    return [*system, {"role": "user", "content": inputs["prompt"]}]
