"""The chat model: vLLM's AsyncLLM under the Inferless contract. The engine process loads it; see `input_schema.py`.

Detokenizing and stop strings are done here, with vLLM's own detokenizer: its state follows from the prompt and the
tokens so far, so after an engine's death it is rebuilt exactly by feeding it the delivered tokens again. That also
covers a character split over tokens, and text held back because it may begin a stop string.
"""

import asyncio
import secrets
import time
from types import SimpleNamespace
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreRequest, FinishReason
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.engine.output_processor import OutputProcessor, RequestState

from everstream import vllm_start
from everstream.contract import StreamOutputHandler
from everstream.errors import InvalidInput, ModelDied
from everstream.settings import load_settings
from input_schema import parse_messages

DEFAULT_MAX_TOKENS = 1024
SAMPLING_INPUTS = ("temperature", "top_p", "top_k", "seed", "ignore_eos")
# What a model's generation_config.json may suggest. Presence and frequency penalties are left out: they count the
# answer's tokens alone, and after an engine's death the first of those are part of vLLM's prompt.
SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
NOT_OURS = ("abort", "error")
"""Finish reasons that nobody asked for here: a stop cancels the task that would see them."""
DYING_S = 10.0


class InferlessPythonModel:
    async def initialize(self) -> None:
        self.llm = vllm_start.start(load_settings())
        self.tokenizer = self.llm.get_tokenizer()
        self.max_model_len: int = self.llm.model_config.max_model_len
        # Asked for by the first request otherwise, which would wait for ever for a process that died meanwhile.
        await self.llm.get_supported_tasks()
        self.answers: dict[str, Answer] = {}
        self.llm.output_processor.add_request = self._add_request  # type: ignore[method-assign]
        suggested = self.llm.model_config.get_diff_sampling_param()
        self.sampling_defaults = {name: suggested[name] for name in SAMPLING_DEFAULTS if name in suggested}

    async def infer(self, inputs: dict[str, Any], stream_output_handler: StreamOutputHandler) -> None:
        prompt = self.prompt_tokens(inputs)
        answer = Answer(self, prompt, inputs, stream_output_handler)
        if answer.replay():
            return
        try:
            await self._generate(prompt, answer)
        except EngineDeadError as error:
            raise ModelDied(str(error)) from error
        except EngineGenerateError as error:
            await self._raise_if_dying(error)
            raise

    async def _generate(self, prompt: list[int], answer: "Answer") -> None:
        """As `AsyncLLM.generate` does, but the tokens go to `answer` as vLLM hears them; what comes here is the end.

        To wake a task for each token costs more than all that is done with it.
        """
        request_id = secrets.token_hex(16)
        self.answers[request_id] = answer
        try:
            outputs = await self.llm.add_request(request_id, tokens_input(prompt + answer.token_ids), answer.sampling())
            last = await outputs.get()
            finish_reason = last.outputs[0].finish_reason
            if finish_reason in NOT_OURS:
                raise EngineGenerateError(f"vLLM ended the request: {finish_reason}")
        except EngineDeadError:
            raise
        except BaseException as error:
            await self.llm.abort(request_id)
            if isinstance(error, (VLLMClientError, asyncio.CancelledError)) or error is answer.refusal:
                raise
            raise EngineGenerateError(str(error)) from error
        finally:
            self.answers.pop(request_id, None)

    def _add_request(self, request: EngineCoreRequest, *more: Any) -> None:
        """In place of vLLM's own: called for each new request, before vLLM's engine hears of it."""
        processor = self.llm.output_processor
        OutputProcessor.add_request(processor, request, *more)
        self.answers.pop(request.external_req_id).attach(processor.request_states[request.request_id])

    async def _raise_if_dying(self, error: EngineGenerateError) -> None:
        """A request may fail because one of vLLM's processes is gone, which vLLM notices a little later."""
        deadline = time.monotonic() + DYING_S
        while time.monotonic() < deadline:
            if self.has_died:
                raise ModelDied(f"{error!r}, caused by {error.__cause__!r}") from error
            await asyncio.sleep(0.1)

    def finalize(self) -> None:
        self.llm.shutdown()

    @property
    def has_died(self) -> bool:
        return bool(self.llm.errored)

    @property
    def running_requests(self) -> int:
        """vLLM's own count of what it has not finished."""
        return int(self.llm.output_processor.get_num_unfinished_requests())

    def check(self, inputs: dict[str, Any]) -> None:
        """Raise InvalidInput if the prompt does not fit into the model's context."""
        self.prompt_tokens(inputs)

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
        self.refusal: Exception | None = None
        """Why the handler took no more."""
        self._sampling_defaults = model.sampling_defaults
        self._prompt_tokens = len(prompt)
        self._inputs = inputs
        self._handler = handler
        self._unsent: list[int] = []
        self._send_at = 1
        self._max_tokens = min(inputs.get("max_tokens", DEFAULT_MAX_TOKENS), model.max_model_len - len(prompt))
        text_params = SamplingParams(stop=inputs.get("stop"))
        # The detokenizer reads these fields of vLLM's EngineCoreRequest, and no other, from 0.26 to 0.33.
        request = SimpleNamespace(
            request_id="", prompt_token_ids=prompt, prompt_embeds=None, sampling_params=text_params
        )
        self._detokenizer = IncrementalDetokenizer.from_new_request(model.tokenizer, request)  # type: ignore[arg-type]

    def replay(self) -> bool:
        """Take in what was delivered before an engine's death. True if that was the whole answer."""
        delivered = "".join(output["text"] for output in self._handler.delivered)
        self.token_ids = [token for tokens in self._handler.resume_states for token in tokens or []]
        self._detokenizer.update(list(self.token_ids), False)
        replayed = self._detokenizer.get_next_output_text(False, True)
        if replayed != delivered:
            raise RuntimeError("the log's tokens do not give the log's text: was the model or vLLM changed?")
        if len(self.token_ids) < self._max_tokens:
            return False
        self._take([], "length")
        return True

    def attach(self, request: RequestState) -> None:
        """Stand where vLLM makes an output of tokens; only the last one is made, for who waits for the end.

        vLLM gives the detokenizer each token first, and ends the request where that finds a stop string.
        """
        request.detokenizer = self._detokenizer
        make_output = request.make_request_output

        def take(
            new_token_ids: list[int],
            pooling_output: None,
            finish_reason: FinishReason | None,
            *more: Any,
            **others: Any,
        ) -> Any:
            reason = None if finish_reason is None else str(finish_reason)
            if reason not in NOT_OURS and self.refusal is None:
                try:
                    self._take(new_token_ids, reason)
                except Exception as error:
                    # One answer's trouble; raised here it would be everyone's.
                    self.refusal = error
                    request.queue.put(error)
                self._send_at = request.stream_interval
            if reason is None:
                return None
            return make_output(new_token_ids, pooling_output, finish_reason, *more, **others)

        request.make_request_output = take  # type: ignore[method-assign]

    def sampling(self) -> SamplingParams:
        """What vLLM is to do from here on."""
        given = {name: self._inputs[name] for name in SAMPLING_INPUTS if name in self._inputs}
        return SamplingParams(
            **(self._sampling_defaults | given),
            max_tokens=self._max_tokens - len(self.token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    def _take(self, tokens: list[int], finish_reason: str | None) -> None:
        """New tokens, which the detokenizer has: send the text that is whole."""
        self._unsent += tokens
        if finish_reason is None and (len(self._unsent) < self._send_at or not self._handler.has_room):
            return
        text = self._detokenizer.get_next_output_text(finish_reason is not None, True)
        # Tokens without text yet (half a character, perhaps a stop string) wait for the entry that shows them.
        if text:
            self._handler.send_streamed_output({"text": text}, resume=self._unsent)
            self._unsent = []
        if finish_reason is not None:
            self._handler.finalise_streamed_output(finish_reason, self._usage())

    def _usage(self) -> dict[str, int]:
        completion = self._detokenizer.num_output_tokens()
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
