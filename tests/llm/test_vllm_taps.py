"""Taps take an answer's middle tokens past vLLM's output processor, and change nothing else there.

vLLM's output processor is real; the outputs of its engine are made here.
"""

from contextlib import ExitStack

import numpy as np
import pytest

from tests.llm.test_vllm_seam import TEXT

pytestmark = pytest.mark.usefixtures("vllm")


class Receiver:
    def __init__(self, detokenizer, has_stop_strings=False):
        self.detokenizer, self.has_stop_strings = detokenizer, has_stop_strings
        self.text, self.tokens, self.ended, self.error = "", [], None, None

    def take(self, tokens, finish_reason, stop_reason):
        if self.error:
            raise self.error
        self.tokens += tokens
        self.text += self.detokenizer.get_next_output_text(finish_reason is not None, True)
        self.ended = finish_reason and (finish_reason, stop_reason)


class Step:
    """An output processor with taps, its requests, and which of their outputs its own code has seen."""

    def __init__(self, tokenizer):
        from vllm.v1.engine.output_processor import OutputProcessor

        from everstream.llm.vllm_internals import find_internals
        from everstream.llm.vllm_taps import Taps

        seen = []

        class Recording(OutputProcessor):
            def process_outputs(self, outputs, *more, **others):
                seen.extend((output.request_id, list(output.new_token_ids)) for output in outputs)
                return super().process_outputs(outputs, *more, **others)

        self.seen, self.queues, self._tokenizer = seen, {}, tokenizer
        self._opened = {}
        self.processor = Recording(tokenizer, log_stats=False)
        self._internals = find_internals()._replace(OutputProcessor=Recording)
        self._taps = Taps(self._internals, self.processor)
        self._taps.open()

    def add(self, name, stop=None):
        """A new request of ours. Returns its receiver."""
        from everstream.llm.vllm_taps import Tap

        shown = self._request(name, stop=stop)
        detokenizer = self._internals.IncrementalDetokenizer.from_new_request(self._tokenizer, shown)
        receiver = Receiver(detokenizer, bool(stop))
        self._opened[name] = ExitStack()
        self._opened[name].enter_context(self._taps.attached(name, Tap(receiver)))
        self._add(self._request(name, detokenize=False))
        return receiver

    def leave(self, name):
        """Nobody waits for the request's end any more."""
        self._opened.pop(name).close()

    @property
    def flowing(self):
        return set(self._taps._flowing)

    def add_theirs(self, name):
        """A new request of vLLM's front end."""
        self._add(self._request(name))

    def _request(self, name, **params):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        fields = ("mm_features", "pooling_params", "lora_request", "cache_salt", "data_parallel_rank")
        return self._internals.EngineCoreRequest(
            request_id=name,
            external_req_id=name,
            prompt_token_ids=[1],
            sampling_params=SamplingParams(max_tokens=500, output_kind=RequestOutputKind.DELTA, **params),
            arrival_time=0,
            **dict.fromkeys(fields),
        )

    def _add(self, request):
        from vllm.v1.engine.output_processor import RequestOutputCollector

        name = request.request_id
        self.queues[name] = RequestOutputCollector(request.sampling_params.output_kind, name)
        self.processor.add_request(request, None, queue=self.queues[name])

    def run(self, *outputs, weight_version=None, **more):
        return self.processor.process_outputs(list(outputs), 0.0, None, weight_version=weight_version, **more)

    def seen_of(self, name):
        return [tokens for request_id, tokens in self.seen if request_id == name]


@pytest.fixture
def step(tokenizer):
    return Step(tokenizer)


@pytest.fixture
def tokens(tokenizer):
    return tokenizer.encode(TEXT)


def output(name, *tokens, **more):
    from vllm.v1.engine import EngineCoreOutput

    return EngineCoreOutput(name, list(tokens), **more)


def finished(name, *tokens):
    from vllm.v1.engine import FinishReason

    return output(name, *tokens, finish_reason=FinishReason.LENGTH)


def test_middle_tokens_skip_vllms_code(step, tokens):
    receiver = step.add("a")
    for token in tokens[:-1]:
        step.run(output("a", token))
    done = step.run(finished("a", tokens[-1]))
    assert (receiver.text, receiver.tokens, receiver.ended) == (TEXT, tokens, ("length", None))
    assert step.seen_of("a") == [tokens[:1], tokens[-1:]]
    (completion,) = step.queues["a"].get_nowait().outputs
    assert (completion.finish_reason, completion.token_ids) == ("length", tokens[-1:])
    assert (done.request_outputs, done.reqs_to_abort, step.processor.request_states) == ([], [], {})


def test_several_tokens_at_once(step, tokens):
    receiver = step.add("a")
    for at in range(0, len(tokens), 3):
        step.run(output("a", *tokens[at : at + 3]))
    step.run(output("a"), finished("a"))
    assert (receiver.text, receiver.tokens) == (TEXT, tokens)
    assert step.seen_of("a") == [tokens[:3], []]


def test_aborted_request_gets_nothing_more(step, tokens):
    ended, other = step.add("a"), step.add("b")
    for token in tokens[:5]:
        step.run(output("a", token), output("b", token))
    assert step.processor.abort_requests(["a"], internal=False) == ["a"]
    for token in tokens[5:]:
        step.run(output("a", token), output("b", token))
    assert (ended.tokens, ended.ended, other.text) == (tokens[:5], None, TEXT)


def test_request_that_is_gone_gets_nothing_more(step, tokens):
    """Without a word to its tap."""
    receiver = step.add("a")
    step.run(output("a", tokens[0]))
    step.processor.request_states.clear()
    step.run(output("a", tokens[1]))
    assert receiver.tokens == tokens[:1]


def test_stop_string_ends_the_request_in_vllm(step, tokens):
    receiver = step.add("a", stop=["3. "])
    done = [step.run(output("a", token)).reqs_to_abort for token in tokens]
    assert receiver.text == TEXT[: TEXT.index("3. ")] and receiver.ended == ("stop", "3. ")
    assert [each for each in done if each] == [["a"]] and not step.processor.request_states


def test_error_of_one_receiver_fails_no_other(step, tokens):
    failing, other = step.add("a"), step.add("b")
    for at, token in enumerate(tokens):
        if at == 3:
            failing.error = ValueError("full")
        step.run(output("a", token), output("b", token))
    assert (failing.tokens, other.text) == (tokens[:3], TEXT)
    with pytest.raises(ValueError, match="full"):
        step.queues["a"].get_nowait()


def test_error_of_one_detokenizer_fails_no_other(step, tokens):
    failing, other = step.add("a"), step.add("b")
    for at, token in enumerate(tokens):
        if at == 3:
            failing.detokenizer.stream = None
        step.run(output("a", token), output("b", token))
    assert (failing.tokens, other.text) == (tokens[:3], TEXT)
    with pytest.raises(AttributeError):
        step.queues["a"].get_nowait()


def test_requests_of_vllms_front_end_stay_in_vllm(step, tokens):
    step.add_theirs("theirs")
    ours = step.add("ours")
    text = ""
    for token in tokens:
        step.run(output("theirs", token), output("ours", token))
        text += step.queues["theirs"].get_nowait().outputs[0].text
    assert (text, ours.text) == (TEXT, TEXT)
    assert step.seen_of("theirs") == [[token] for token in tokens]


UNUSUAL = {
    "routed_experts": np.zeros((1, 2, 2)),
    "kv_transfer_params": {"remote": 1},
    "num_nans_in_logits": 1,
    "trace_headers": {"traceparent": "x"},
}


@pytest.mark.parametrize("field", UNUSUAL)
def test_output_with_more_than_tokens_is_vllms(step, tokens, field):
    """And so is what follows it in the same step. Then the request flows again."""
    receiver = step.add("a")
    step.run(output("a", tokens[0]))
    step.run(output("a", tokens[1]), output("a", tokens[2], **{field: UNUSUAL[field]}), output("a", tokens[3]))
    step.run(output("a", tokens[4]))
    assert receiver.tokens == tokens[:5]
    assert step.seen_of("a") == [[tokens[at]] for at in (0, 2, 3)]


def test_unknown_argument_closes_the_shortcut(step, tokens):
    step.add("a")
    step.run(output("a", tokens[0]))
    with pytest.raises(TypeError, match="new_option"):
        step.run(output("a", tokens[1]), new_option=1)
    assert step.seen_of("a") == [[tokens[0]], [tokens[1]]]


def test_statistics_get_every_token(step, tokens):
    """They are off unless ENGINE_ARGS turn them on."""
    step.add("a")
    step.processor.request_states["a"].stats = object()
    for token in tokens[:4]:
        step.processor.process_outputs([output("a", token)], 0.0, Statistics())
    assert step.seen_of("a") == [[token] for token in tokens[:4]]


class Statistics:
    def update_from_output(self, *_): ...


def test_weight_versions_are_vllms(step, tokens):
    """The version changes while one of two requests has no output."""
    versions = ["1", "1", "1", "2", "2", "2", "1"]
    step.add("ours")
    step.add_theirs("theirs")
    for at, version in enumerate(versions):
        names = ("ours", "theirs") if at not in (3, 6) else ()
        step.run(*(output(name, tokens[at]) for name in names), weight_version=version)
    step.run(*(finished(name, tokens[7]) for name in ("ours", "theirs")), weight_version="1")
    (ours,), (theirs,) = (step.queues[name].get_nowait().outputs for name in ("ours", "theirs"))
    assert [tuple(vars(span).values()) for span in theirs.weight_versions] == [("1", 0, 3), ("2", 3, 5), ("1", 5, 6)]
    assert ours.weight_versions == theirs.weight_versions
    assert len(step.seen_of("ours")) == 3


def test_nothing_is_kept_of_a_request_that_nobody_waits_for(step, tokens):
    """One is cancelled a moment before vLLM is told."""
    receiver = step.add("a")
    step.run(output("a", tokens[0]))
    assert step.flowing == {"a"}
    step.leave("a")
    assert step.flowing == set()
    step.run(output("a", tokens[1]))
    assert (step.flowing, receiver.tokens) == (set(), tokens[:2])
