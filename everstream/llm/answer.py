"""One answer of plain text: vLLM's tokens in, text out to the handler. Called by `chat_model`.

Detokenizing and stop strings are handled outside vLLM. The detokenizer's state follows from the prompt and the tokens
so far, so after an engine's death it is rebuilt exactly by feeding it the delivered tokens again. That also covers a
character split across tokens, and text held back because it may begin a stop string.
"""

import msgspec
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from everstream.contract.chat_outputs import ChoiceEnd, Ending
from everstream.contract.output_handler import StreamOutputHandler
from everstream.llm.vllm_seam import Vllm

COUNTING = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "bad_words": [], "repetition_detection": None}
"""Parameters that depend on which tokens the model has generated itself, and the values that turn them off. After an
engine's death, the first of those tokens are part of vLLM's prompt."""
FINISH_REASONS = {"repetition": "stop"}
"""vLLM's reasons that OpenAI does not have, as OpenAI's. The `stop_reason` says more."""
UNWATCHED_TOKENS = 64
"""So many tokens are sent at once of an answer that nobody watches: as many are generated again after a death."""
NOT_RESUMABLE = "the engine died, and an answer with {} can't be resumed"


class Answer:
    """Receives one generation's tokens."""

    def __init__(
        self, vllm: Vllm, params: SamplingParams, prompt: list[int], handler: StreamOutputHandler, interval: int = 1
    ) -> None:
        """`params` are those of the whole answer. `interval`: send so many tokens at once, after the first one."""
        self.token_ids: list[int] = []
        """Tokens delivered before this engine took over."""
        self._params = params
        self._prompt_tokens = len(prompt)
        self._handler = handler
        self._unsent: list[int] = []
        self._send_at = 1
        self._stream_interval = max(interval, vllm.stream_interval)
        self.detokenizer = vllm.detokenizer(prompt, params)
        self.has_stop_strings = bool(params.stop)

    def replay(self) -> bool:
        """Replay what was delivered before an engine's death. Returns True if nothing is left to do."""
        if not self._handler.has_delivered:
            return False
        if counting := [name for name, off in COUNTING.items() if getattr(self._params, name) not in (off, None)]:
            self._handler.fail("not_resumable", NOT_RESUMABLE.format(", ".join(counting)))
            return True
        delivered = "".join(output["text"] for output in self._handler.delivered)
        self.token_ids = [token for tokens in self._handler.resume_states for token in tokens or []]
        self.detokenizer.update(list(self.token_ids), False)
        replayed = self.detokenizer.get_next_output_text(False, True)
        if replayed != delivered:
            raise RuntimeError("the log's tokens do not decode to the log's text: was the model or vLLM changed?")
        if len(self.token_ids) < self._max_tokens:
            return False
        self.take([], "length", None)
        return True

    @property
    def _max_tokens(self) -> int:
        return int(self._params.max_tokens)

    def sampling(self) -> SamplingParams:
        """The parameters for the rest of the answer."""
        return msgspec.structs.replace(
            self._params,
            max_tokens=self._max_tokens - len(self.token_ids),
            min_tokens=max(0, self._params.min_tokens - len(self.token_ids)),
            stop=[],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    def take(self, tokens: list[int], finish_reason: str | None, stop_reason: int | str | None) -> None:
        """Take new tokens, which the detokenizer already has, and send the text that is complete."""
        self._unsent += tokens
        if finish_reason is None and (len(self._unsent) < self._send_at or not self._handler.writable):
            return
        self._send_at = self._stream_interval
        text = self.detokenizer.get_next_output_text(finish_reason is not None, True)
        # Tokens without text yet (half a character, perhaps a stop string) wait for the entry that shows them.
        if text:
            self._handler.send_text(text, self._unsent)
            self._unsent = []
        if finish_reason is not None:
            finish_reason = FINISH_REASONS.get(finish_reason, finish_reason)
            ends = None if stop_reason is None else [ChoiceEnd(0, finish_reason, stop_reason)]
            self._handler.finalise_streamed_output(**msgspec.to_builtins(Ending(finish_reason, self._usage(), ends)))

    def _usage(self) -> dict[str, int]:
        completion = self.detokenizer.num_output_tokens()
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
        }
