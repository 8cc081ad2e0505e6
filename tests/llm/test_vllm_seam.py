"""The seam to vLLM's internals notices changes there, and the fallback needs none of them."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everstream.contract.output_handler import HandlerOptions, StreamOutputHandler
from everstream.llm.detokenizer import PublicDetokenizer
from everstream.log.entries import decode_lines
from harness.answers import EMOJI
from harness.sink import WriterSink

TEXT = f"Count: 1, 2, 3. {EMOJI} Привет, как дела? naïve — “quoted”\n\n\tdone"
STOPS = [None, ["17"], ["never said"], ["3. ", "дела"], ["\n\n", "\n"], ["🚀🌍"]]


pytestmark = pytest.mark.usefixtures("vllm")


@pytest.fixture(scope="module")
def internals(vllm):
    from everstream.llm.vllm_internals import find_internals

    return find_internals()


def differences(internals):
    from everstream.llm.vllm_internals import differences

    return differences(internals)


class RenamedKeyword:
    def __init__(self, request_id, detokenizer, queue): ...

    def make_request_output(self, token_ids, pooling_output, finish_reason, stop_reason): ...


class KeywordOnly:
    def __init__(self, request_id, detokenizer, queue): ...

    def make_request_output(self, *, new_token_ids, pooling_output, finish_reason): ...


class MissingMethod:
    def __init__(self, request_id, detokenizer, queue): ...


class RenamedField:
    def __init__(self, request_id, text_builder, queue): ...

    def make_request_output(self, new_token_ids, pooling_output, finish_reason, stop_reason, *more): ...


class ExtraField:
    def __init__(self, request_id, new_token_ids, client_index): ...


class ExtraParameter:
    @classmethod
    def from_new_request(cls, tokenizer, request, model_config): ...

    def update(self, new_token_ids, stop_terminated): ...

    def get_next_output_text(self, finished, delta, raw=False): ...

    def num_output_tokens(self): ...


CHANGED = {
    "renamed keyword": (
        {"RequestState": RenamedKeyword},
        "RequestState.make_request_output takes (self, token_ids, pooling_output, finish_reason, stop_reason), "
        "expected (self, new_token_ids, pooling_output, finish_reason, stop_reason)",
    ),
    "keyword only": (
        {"RequestState": KeywordOnly},
        "RequestState.make_request_output takes (self, *, new_token_ids, pooling_output, finish_reason), "
        "expected (self, new_token_ids, pooling_output, finish_reason, stop_reason)",
    ),
    "missing method": ({"RequestState": MissingMethod}, "RequestState.make_request_output is gone"),
    "renamed field": ({"RequestState": RenamedField}, "RequestState has no detokenizer"),
    "extra field": (
        {"EngineCoreOutput": ExtraField},
        "EngineCoreOutput takes (request_id, new_token_ids, client_index), expected (request_id, new_token_ids)",
    ),
    "extra parameter": (
        {"IncrementalDetokenizer": ExtraParameter},
        "IncrementalDetokenizer.from_new_request takes (tokenizer, request, model_config), "
        "expected (tokenizer, request)",
    ),
}


def test_installed_vllm_is_known(internals):
    assert differences(internals) == []


@pytest.mark.parametrize(("classes", "difference"), CHANGED.values(), ids=CHANGED)
def test_changed_internals_are_named(internals, classes, difference):
    assert differences(internals._replace(**classes)) == [difference]


def vllm_detokenizer(internals, tokenizer, prompt, stop):
    """vLLM's own detokenizer, made as the seam makes it."""
    from vllm import SamplingParams

    from everstream.llm import vllm_seam

    seam = SimpleNamespace(_internals=internals, tokenizer=tokenizer)
    return vllm_seam.Vllm.detokenizer(seam, prompt, SamplingParams(stop=stop))


def run(detokenizer, chunks):
    """Each chunk's text and stop string, up to the first stop string; and the number of tokens."""
    seen = []
    for chunk in chunks:
        stop = detokenizer.update(list(chunk), False)
        seen.append((detokenizer.get_next_output_text(stop is not None, True), stop))
        if stop:
            break
    else:
        seen.append((detokenizer.get_next_output_text(True, True), None))
    return seen, detokenizer.num_output_tokens()


@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data(), stop=st.sampled_from(STOPS))
def test_public_detokenizer_equals_vllms(internals, tokenizer, data, stop):
    """For any tokens: partial characters, invalid UTF-8, special tokens, several at once."""
    tokens = st.one_of(st.integers(0, len(tokenizer) - 1), st.sampled_from(tokenizer.encode(TEXT)), st.integers(0, 300))
    prompt = tokenizer.encode(data.draw(st.sampled_from(["Hi", "a" * 500, "<|im_start|>assistant\n"])))
    chunks = data.draw(st.lists(st.lists(tokens, max_size=4), max_size=30))
    seen, count = run(PublicDetokenizer(tokenizer, prompt, stop), chunks)
    assert seen == run(vllm_detokenizer(internals, tokenizer, prompt, stop), chunks)[0]
    # One token at a time: before 0.32, vLLM also counts the tokens after a stop string within a chunk.
    one_by_one = [[token] for chunk in chunks for token in chunk]
    assert count == run(vllm_detokenizer(internals, tokenizer, prompt, stop), one_by_one)[1]


@pytest.mark.parametrize("stop", STOPS)
def test_final_token_is_counted_but_not_shown(internals, tokenizer, stop):
    tokens = tokenizer.encode(TEXT + "<|im_end|>")
    for detokenizer in (PublicDetokenizer(tokenizer, [1], stop), vllm_detokenizer(internals, tokenizer, [1], stop)):
        found = detokenizer.update(list(tokens[:-1]), False)
        found = found or detokenizer.update([tokens[-1]], True)
        text = detokenizer.get_next_output_text(True, True)
        assert text == (TEXT[: TEXT.index(found)] if found else TEXT)
        assert (detokenizer.num_output_tokens() == len(tokens)) == (found is None)


class Log:
    """A generation's log, filled by a real handler and writer."""

    def __init__(self):
        self.outputs, self.resume_states, self.end = [], [], None
        self._writer = None

    def handler(self):
        sink = WriterSink()
        self._writer = sink.writer
        return StreamOutputHandler(sink, list(self.outputs), list(self.resume_states), HandlerOptions(1 << 20))

    @property
    def writable(self):
        return self._writer.writable

    def take(self):
        batch = self._writer.take()
        for entry in decode_lines(batch.lines, batch.first):
            if entry.is_terminal:
                self.end = entry.event, msgspec.json.decode(entry.data)
            else:
                self.outputs.append(msgspec.json.decode(entry.data))
                self.resume_states.append(msgspec.json.decode(entry.resume))
        self._writer.settle()

    @property
    def text(self):
        return "".join(output["text"] for output in self.outputs)


def make_answer(log, tokenizer, **inputs):
    """An Answer as `infer` makes it, on the public path, resumed from the log."""
    from vllm import SamplingParams

    from everstream.llm.answer import Answer

    def detokenizer(prompt, params):
        return PublicDetokenizer(tokenizer, prompt, params.stop)

    vllm = SimpleNamespace(detokenizer=detokenizer, stream_interval=1)
    params = SamplingParams(max_tokens=1000, **inputs)
    result = Answer(vllm, params, tokenizer.encode("Repeat:"), log.handler())
    result.replay()
    return result


def feed(answer, tokens, *, to_the_end=False):
    """Feed tokens one at a time, as vLLM's outputs do. True if a stop string ended the answer."""
    from everstream.llm.vllm_taps import Tap

    last = len(tokens) - 1 if to_the_end else None
    completions = [
        SimpleNamespace(token_ids=[token], finish_reason="length" if at == last else None, stop_reason=None)
        for at, token in enumerate(tokens)
    ]
    return any(Tap(answer).pass_on(completion) for completion in completions)


@pytest.mark.parametrize("stop", STOPS)
def test_answer_cut_anywhere_continues_identically(tokenizer, stop):
    tokens = tokenizer.encode(TEXT)

    async def cut_at(at):
        log = Log()
        ended = feed(make_answer(log, tokenizer, stop=stop), tokens[:at])
        log.take()
        if not ended:
            # Tokens without text so far are generated again.
            successor = make_answer(log, tokenizer, stop=stop)
            assert successor.token_ids == tokens[: len(successor.token_ids)]
            feed(successor, tokens[len(successor.token_ids) :], to_the_end=True)
            log.take()
        return log

    undisturbed, *cut = [asyncio.run(cut_at(at)) for at in range(len(tokens))]
    assert undisturbed.text == TEXT[: min((TEXT.index(each) for each in stop or () if each in TEXT), default=None)]
    for each in cut:
        assert (each.text, each.end) == (undisturbed.text, undisturbed.end)


def test_tokens_wait_for_a_slow_log_and_arrive_whole(tokenizer):
    tokens = tokenizer.encode(TEXT)

    async def main():
        log = Log()
        answer = make_answer(log, tokenizer)
        feed(answer, tokens[:5])
        log.take()
        log.writable.clear()
        feed(answer, tokens[5:20])
        log.take()
        assert len(log.outputs) == 5
        log.writable.set()
        feed(answer, tokens[20:], to_the_end=True)
        log.take()
        return log

    log = asyncio.run(main())
    assert log.text == TEXT
    assert [token for tokens in log.resume_states for token in tokens] == tokens
    assert log.end[1]["usage"]["completion_tokens"] == len(tokens)
