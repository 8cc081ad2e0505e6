"""A prompt bound is never too small, whatever the text. If that can't be guaranteed, there is no bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from everstream.llm import demo_model
from everstream.llm.prompt_bound import prompt_bound
from everstream.settings import load_settings

CONTEXT = 8
TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
BYTES = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
VOCABULARY = BYTES | {"ab": 256, "abab": 257}
MERGES = [("a", "b"), ("ab", "ab")]


def byte_level(vocabulary=VOCABULARY, merges=MERGES, template=TEMPLATE, **parts):
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, part in parts.items():
        setattr(backend, name, part)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template)


def with_added(*tokens):
    tokenizer = byte_level()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def test_bound_follows_the_longest_token():
    assert prompt_bound(byte_level(), CONTEXT).max_bytes == 7 * 4
    assert prompt_bound(with_added("<a longer one>", "ü"), CONTEXT).max_bytes == 7 * 14
    bound = prompt_bound(byte_level(), CONTEXT)
    assert (bound.inputs, bound.dropped) == (["prompt"], [])
    assert not bound.exceeded_by("abab" * 7) and bound.exceeded_by("abab" * 7 + "a")


def test_dropped_bytes_do_not_count():
    without = {token: number for token, number in VOCABULARY.items() if token != "z"}
    tokenizer = byte_level(without)
    assert tokenizer.encode("zzz") == []
    bound = prompt_bound(tokenizer, CONTEXT)
    assert bound.dropped == [ord("z")]
    assert not bound.exceeded_by("z" * 1000) and bound.exceeded_by("z" + "a" * 29)


REMOVE = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()])
ISOLATE = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel()])


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_level(normalizer=normalizers.NFC()),
        byte_level(pre_tokenizer=None),
        byte_level(pre_tokenizer=REMOVE),
        byte_level(pre_tokenizer=pre_tokenizers.Whitespace()),
        byte_level(template=TEMPLATE.replace("message['content']", "message['content'] | trim")),
        byte_level(template=TEMPLATE.replace("message['content']", "message['content'].split('</')[0]")),
        byte_level(template=None),
        with_added(AddedToken("<s>", lstrip=True)),
        with_added(AddedToken("<s>", rstrip=True)),
        PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")), chat_template=TEMPLATE
        ),
        object(),
    ],
)
def test_no_bound_if_the_tokenizer_may_shrink_a_text(tokenizer):
    assert prompt_bound(tokenizer, CONTEXT) is None


def test_splitting_keeps_the_bound():
    assert prompt_bound(byte_level(pre_tokenizer=ISOLATE), CONTEXT).max_bytes == 28


@pytest.fixture(scope="module")
def demo():
    return AutoTokenizer.from_pretrained(demo_model.build(load_settings()))


@pytest.fixture(scope="module")
def one_token(demo):
    """The bound of a context with room for one token."""
    return prompt_bound(demo, 2)


PARTS = st.sampled_from([*map(chr, range(33)), "#", "=", "-", "a", "<|im_end|>", "é", "中", "😀", "\U00050000"])
RUNS = st.tuples(PARTS, st.integers(1, 400)).map(lambda run: run[0] * run[1])


@given(text=st.text() | st.lists(PARTS | RUNS, max_size=9).map("".join), raw=st.booleans())
def test_no_text_that_fits_the_demo_model_is_refused(demo, one_token, text, raw):
    messages = [{"role": "user", "content": text}]
    tokens = demo.encode(text) if raw else demo.apply_chat_template(messages, tokenize=True, return_dict=False)
    fitting = structs.replace(one_token, max_bytes=len(tokens) * one_token.max_bytes)
    assert not fitting.exceeded_by(text)


def test_demo_model_has_a_bound(demo):
    assert prompt_bound(demo, 8192).max_bytes == 8191 * 81
