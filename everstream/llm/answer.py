"""One answer: vLLM's tokens in, text out to the handler.

Detokenizing and stop strings are handled outside vLLM. The detokenizer's state follows from the prompt and the tokens
so far, so after an engine's death it is rebuilt exactly by feeding it the delivered tokens again. That also covers a
character split across tokens, and text held back because it may begin a stop string.
"""

from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from everstream.contract.output_handler import StreamOutputHandler
from everstream.llm.vllm_seam import Vllm

DEFAULT_MAX_TOKENS = 1024
SAMPLING_INPUTS = ("temperature", "top_p", "top_k", "seed", "ignore_eos")


class Answer:
    """Receives one generation's tokens."""

    def __init__(
        self,
        vllm: Vllm,
        sampling_defaults: dict[str, Any],
        prompt: list[int],
        inputs: dict[str, Any],
        handler: StreamOutputHandler,
    ) -> None:
        self.token_ids: list[int] = []
        """Tokens delivered before this engine took over."""
        self._sampling_defaults = sampling_defaults
        self._prompt_tokens = len(prompt)
        self._inputs = inputs
        self._handler = handler
        self._unsent: list[int] = []
        self._send_at = 1
        self._stream_interval = vllm.stream_interval
        self._max_tokens = min(inputs.get("max_tokens", DEFAULT_MAX_TOKENS), vllm.max_model_len - len(prompt))
        self.detokenizer = vllm.detokenizer(prompt, inputs.get("stop"))

    def replay(self) -> bool:
        """Replay what was delivered before an engine's death. Returns True if that was the whole answer."""
        delivered = "".join(output["text"] for output in self._handler.delivered)
        self.token_ids = [token for tokens in self._handler.resume_states for token in tokens or []]
        self.detokenizer.update(list(self.token_ids), False)
        replayed = self.detokenizer.get_next_output_text(False, True)
        if replayed != delivered:
            raise RuntimeError("the log's tokens do not decode to the log's text: was the model or vLLM changed?")
        if len(self.token_ids) < self._max_tokens:
            return False
        self.take([], "length")
        return True

    def sampling(self) -> SamplingParams:
        """The parameters for the rest of the answer."""
        given = {name: self._inputs[name] for name in SAMPLING_INPUTS if name in self._inputs}
        return SamplingParams(
            **(self._sampling_defaults | given),
            max_tokens=self._max_tokens - len(self.token_ids),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    def take(self, tokens: list[int], finish_reason: str | None) -> None:
        """Take new tokens, which the detokenizer already has, and send the text that is complete."""
        self._unsent += tokens
        if finish_reason is None and (len(self._unsent) < self._send_at or not self._handler.writable):
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
