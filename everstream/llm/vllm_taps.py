"""Taps on vLLM's output processor, where the tokens of our requests leave vLLM. Used by `vllm_seam`.

In: the outputs of vLLM's engine, one per request and step. Out: new tokens, to a `Receiver`.

A request's first and last outputs pass through vLLM's own code, and so does each that holds more than tokens. The
others skip it: for each token, it would look for a dozen things that an answer of plain text does not have.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from everstream.llm.detokenizer import Detokenizer
from everstream.llm.vllm_internals import Internals

ABNORMAL_FINISHES = ("abort", "error")
"""Finish reasons that we never cause: a stop cancels the task that would see them."""


class Receiver(Protocol):
    """Gets an answer's tokens."""

    detokenizer: Detokenizer
    """Already has the tokens when `take` is called."""
    has_stop_strings: bool
    """Whether the detokenizer may find one, which ends the answer."""

    def take(self, tokens: list[int], finish_reason: str | None, stop_reason: int | str | None) -> None: ...


class Tap:
    """Where the tokens of one request come out of vLLM."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._state: Any = None
        self.request_id = ""
        """vLLM's own."""
        self.is_open = True
        """Whether someone waits for the end."""
        self.detokenize = receiver.detokenizer.update
        self.give = receiver.take
        self.refusal: Exception | None = None
        """Why the receiver accepts no more tokens."""

    def attach(self, state: Any, flowing: dict[str, "Tap"]) -> None:
        """Intercept the step where vLLM makes outputs from tokens. Only the last output is made, for the task that
        waits for the end. `flowing` has this tap while its tokens need not come this way.

        vLLM gives each token to the detokenizer first, and ends the request if that finds a stop string.
        """
        state.detokenizer = self._receiver.detokenizer
        self._state, self.request_id = state, state.request_id
        make_output = state.make_request_output

        def take(
            new_token_ids: list[int],
            pooling_output: None,
            finish_reason: Any,
            stop_reason: Any,
            *more: Any,
            **others: Any,
        ) -> Any:
            reason = None if finish_reason is None else str(finish_reason)
            if reason not in ABNORMAL_FINISHES and self.refusal is None:
                try:
                    self.give(new_token_ids, reason, stop_reason)
                except Exception as error:
                    self.refuse(error)
            if reason is None:
                # Without tokens, vLLM has not noted yet which version of the weights makes them.
                if new_token_ids and self.is_open and not self._receiver.has_stop_strings:
                    flowing[self.request_id] = self
                return None
            flowing.pop(self.request_id, None)
            return make_output(new_token_ids, pooling_output, finish_reason, stop_reason, *more, **others)

        state.make_request_output = take

    def refuse(self, error: Exception) -> None:
        """Fail this request. Raised in vLLM's code, one answer's error would fail all of them."""
        self.refusal, self.is_open = error, False
        # Perhaps it is what failed, and vLLM may have another output for it.
        self._state.detokenizer = _NoDetokenizer()
        self._state.queue.put(error)

    def pass_on(self, completion: Any) -> bool:
        """Pass on the tokens of one of vLLM's outputs. True: the answer ended, by vLLM or by a stop string."""
        tokens, finish_reason = list(completion.token_ids), completion.finish_reason
        stop_reason = self.detokenize(tokens, finish_reason == "stop")
        if stop_reason is not None:
            finish_reason = "stop"
        self.give(tokens, finish_reason, stop_reason or completion.stop_reason)
        return finish_reason is not None


class _NoDetokenizer:
    """Of a request whose text nobody gets."""

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> None:
        pass

    def num_output_tokens(self) -> int:
        return 0


class Taps:
    """All taps of one output processor, of which it takes over two methods while open."""

    def __init__(self, internals: Internals, processor: Any) -> None:
        self._internals = internals
        self._processor = processor
        self._expected: dict[str, Tap] = {}
        self._flowing: dict[str, Tap] = {}
        self._weight_version: str | None = None

    def open(self) -> None:
        self._processor.add_request = self._add_request
        self._processor.process_outputs = self._process_outputs

    def close(self) -> None:
        del self._processor.add_request, self._processor.process_outputs

    @contextmanager
    def attached(self, request_id: str, tap: Tap) -> Iterator[None]:
        """Attach the tap when vLLM gets a request with this id."""
        self._expected[request_id] = tap
        try:
            yield
        finally:
            tap.is_open = False
            self._expected.pop(request_id, None)
            # An aborted request gets no last output.
            self._flowing.pop(tap.request_id, None)

    def _add_request(self, request: Any, *more: Any, **others: Any) -> None:
        """Replaces vLLM's own: called for each new request, before it reaches vLLM's engine."""
        self._internals.OutputProcessor.add_request(self._processor, request, *more, **others)
        # Requests of vLLM's own front end (`front_end`) have no tap.
        if tap := self._expected.pop(request.external_req_id, None):
            tap.attach(self._processor.request_states[request.request_id], self._flowing)

    def _process_outputs(
        self,
        outputs: list[Any],
        timestamp: float | None = None,
        iteration_stats: Any = None,
        weight_version: str | None = None,
        *more: Any,
        **others: Any,
    ) -> Any:
        """Replaces vLLM's own: called for all outputs of a step, or for a part of them."""
        if weight_version != self._weight_version:
            # vLLM notes with each request which of its tokens come from which version.
            self._weight_version = weight_version
            self._flowing.clear()
        if iteration_stats is None and not (more or others):
            outputs = self._take_plain(outputs)
        process = self._internals.OutputProcessor.process_outputs
        return process(self._processor, outputs, timestamp, iteration_stats, weight_version, *more, **others)

    def _take_plain(self, outputs: list[Any]) -> list[Any]:
        """Give receivers the tokens of the outputs that hold nothing else. Returns the other outputs.

        Runs for every token.
        """
        flowing, states, plain = self._flowing, self._processor.request_states, self._internals.EngineCoreOutput
        others = []
        for output in outputs:
            request_id, tokens = output.request_id, output.new_token_ids
            tap = flowing.get(request_id)
            try:
                is_plain = tap is not None and output == plain(request_id, tokens) and request_id in states
            except ValueError:
                # An array has no truth value.
                is_plain = False
            if tap is None or not is_plain:
                # Whatever follows it in this step has to stay behind it.
                flowing.pop(request_id, None)
                others.append(output)
                continue
            try:
                tap.detokenize(tokens, False)
                tap.give(tokens, None, None)
            except Exception as error:
                tap.refuse(error)
                del flowing[request_id]
        return others
