"""The seam to vLLM's internals: it notices what has changed there, and the way round needs nothing of them."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everstream import contract, log
from everstream.appender import Writer
from everstream.detokenizer import PublicDetokenizer
from tests.answers import EMOJI

TEXT = f"Count: 1, 2, 3. {EMOJI} Привет, как дела? naïve — “quoted”\n\n\tdone"
STOPS = [None, ["17"], ["never said"], ["3. ", "дела"], ["\n\n", "\n"], ["🚀🌍"]]


pytestmark = pytest.mark.usefixtures("vllm")


@pytest.fixture(scope="module")
def internals(vllm):
    from everstream import vllm_seam

    return vllm_seam.find_internals()


def differences(internals):
    from everstream import vllm_seam

    return vllm_seam.differences(internals)


class RenamedKeyword:
    def __init__(self, detokenizer, queue): ...

    def make_request_output(self, token_ids, pooling_output, finish_reason, stop_reason): ...


class ByNameOnly:
    def __init__(self, detokenizer, queue): ...

    def make_request_output(self, *, new_token_ids, pooling_output, finish_reason): ...


class GoneMethod:
    def __init__(self, detokenizer, queue): ...


class RenamedField:
    def __init__(self, text_builder, queue): ...

    def make_request_output(self, new_token_ids, pooling_output, finish_reason, *more): ...


class AsksForMore:
    @classmethod
    def from_new_request(cls, tokenizer, request, model_config): ...

    def update(self, new_token_ids, stop_terminated): ...

    def get_next_output_text(self, finished, delta, raw=False): ...

    def num_output_tokens(self): ...


CHANGED = {
    "a keyword renamed": (
        {"RequestState": RenamedKeyword},
        "RequestState.make_request_output takes (self, token_ids, pooling_output, finish_reason, stop_reason), "
        "expected were (self, new_token_ids, pooling_output, finish_reason)",
    ),
    "by name only": (
        {"RequestState": ByNameOnly},
        "RequestState.make_request_output takes (self, *, new_token_ids, pooling_output, finish_reason), "
        "expected were (self, new_token_ids, pooling_output, finish_reason)",
    ),
    "a method gone": ({"RequestState": GoneMethod}, "RequestState.make_request_output is gone"),
    "a field renamed": ({"RequestState": RenamedField}, "RequestState has no detokenizer"),
    "one more is asked for": (
        {"IncrementalDetokenizer": AsksForMore},
        "IncrementalDetokenizer.from_new_request takes (tokenizer, request, model_config), "
        "expected were (tokenizer, request)",
    ),
}


def test_the_installed_vllm_is_known(internals):
    assert differences(internals) == []


@pytest.mark.parametrize(("classes", "difference"), CHANGED.values(), ids=CHANGED)
def test_what_has_changed_is_named(internals, classes, difference):
    assert differences(internals._replace(**classes)) == [difference]


def known(internals, tokenizer, prompt, stop):
    """vLLM's own, made as the seam makes it."""
    from everstream import vllm_seam

    return vllm_seam.Vllm.detokenizer(SimpleNamespace(_internals=internals, tokenizer=tokenizer), prompt, stop)


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
def test_the_public_detokenizer_is_as_vllms(internals, tokenizer, data, stop):
    """Over any tokens: pieces of characters, bytes that are no UTF-8, special ones, several at once."""
    tokens = st.one_of(st.integers(0, len(tokenizer) - 1), st.sampled_from(tokenizer.encode(TEXT)), st.integers(0, 300))
    prompt = tokenizer.encode(data.draw(st.sampled_from(["Hi", "a" * 500, "<|im_start|>assistant\n"])))
    chunks = data.draw(st.lists(st.lists(tokens, max_size=4), max_size=30))
    said, count = run(PublicDetokenizer(tokenizer, prompt, stop), chunks)
    assert said == run(known(internals, tokenizer, prompt, stop), chunks)[0]
    # One by one, as vLLM before 0.32 also counts what follows a stop string within a chunk.
    assert count == run(known(internals, tokenizer, prompt, stop), [[token] for chunk in chunks for token in chunk])[1]


@pytest.mark.parametrize("stop", STOPS)
def test_a_token_that_ends_the_answer_is_counted_and_not_shown(internals, tokenizer, stop):
    tokens = tokenizer.encode(TEXT + "<|im_end|>")
    for detokenizer in (PublicDetokenizer(tokenizer, [1], stop), known(internals, tokenizer, [1], stop)):
        found = detokenizer.update(list(tokens[:-1]), False)
        found = found or detokenizer.update([tokens[-1]], True)
        text = detokenizer.get_next_output_text(True, True)
        assert text == (TEXT[: TEXT.index(found)] if found else TEXT)
        assert (detokenizer.num_output_tokens() == len(tokens)) == (found is None)


class Log:
    """What a generation has in the log: the entries of a real handler and writer."""

    def __init__(self):
        self.outputs, self.resume_states, self.end = [], [], None
        self._writer = None

    def handler(self):
        self._writer = Writer("", 1, lambda _: None, lambda _: None)
        return contract.StreamOutputHandler(self._writer, list(self.outputs), list(self.resume_states), 1 << 20)

    @property
    def has_room(self):
        return self._writer.has_room

    def take(self):
        batch = self._writer.take()
        for entry, resume in batch.entries if batch else ():
            decoded = log.decode_entry(0, entry)
            if decoded.is_terminal:
                self.end = decoded.event, msgspec.json.decode(decoded.data)
            else:
                self.outputs.append(msgspec.json.decode(decoded.data))
                self.resume_states.append(msgspec.json.decode(resume))
        self._writer.settle(refused=False)

    @property
    def text(self):
        return "".join(output["text"] for output in self.outputs)


def answer(said, tokenizer, **inputs):
    """As `infer` makes one, on the public way, and told what is in the log."""
    import app

    def detokenizer(prompt, stop):
        return PublicDetokenizer(tokenizer, prompt, stop)

    vllm = SimpleNamespace(detokenizer=detokenizer, stream_interval=1)
    model = SimpleNamespace(vllm=vllm, sampling_defaults={}, max_model_len=2048)
    made = app.Answer(model, tokenizer.encode("Repeat:"), inputs, said.handler())
    made.replay()
    return made


def feed(made, tokens, *, to_the_end=False):
    """One by one, as vLLM's outputs bring them. True if a stop string ended the answer."""
    from everstream.vllm_seam import Tap

    last = len(tokens) - 1 if to_the_end else None
    return any(Tap(made).pass_on([token], "length" if at == last else None) for at, token in enumerate(tokens))


@pytest.mark.parametrize("stop", STOPS)
def test_an_answer_cut_anywhere_goes_on_the_same(tokenizer, stop):
    tokens = tokenizer.encode(TEXT)

    async def cut_at(at):
        said = Log()
        ended = feed(answer(said, tokenizer, stop=stop), tokens[:at])
        said.take()
        if not ended:
            # Tokens that had no text yet are generated again.
            heir = answer(said, tokenizer, stop=stop)
            assert heir.token_ids == tokens[: len(heir.token_ids)]
            feed(heir, tokens[len(heir.token_ids) :], to_the_end=True)
            said.take()
        return said

    undisturbed, *cut = [asyncio.run(cut_at(at)) for at in range(len(tokens))]
    assert undisturbed.text == TEXT[: min((TEXT.index(each) for each in stop or () if each in TEXT), default=None)]
    for each in cut:
        assert (each.text, each.end) == (undisturbed.text, undisturbed.end)


def test_tokens_wait_while_the_log_is_slow_and_come_whole(tokenizer):
    tokens = tokenizer.encode(TEXT)

    async def main():
        said = Log()
        made = answer(said, tokenizer)
        feed(made, tokens[:5])
        said.take()
        said.has_room.clear()
        feed(made, tokens[5:20])
        said.take()
        assert len(said.outputs) == 5
        said.has_room.set()
        feed(made, tokens[20:], to_the_end=True)
        said.take()
        return said

    said = asyncio.run(main())
    assert said.text == TEXT
    assert [token for tokens in said.resume_states for token in tokens] == tokens
    assert said.end[1]["usage"]["completion_tokens"] == len(tokens)
