"""The most text that could fit into a model's context, if its tokenizer allows a bound. Called by `chat_model`.

In a byte-level BPE such as GPT-2's, each byte of a text becomes part of exactly one token, or is dropped if the
vocabulary lacks it. So a text has at least as many tokens as its other bytes divided by the longest token's. Any step
that can shrink the text before that breaks this reasoning; then there is no bound.
"""

import json
from collections.abc import Iterator
from typing import Any

from everstream.contract.prompt_bound import PromptBound

PROBE = " \n <probe>\t&amp; it's  1 </probe>\n\n"
"""Text that a chat template might trim, escape or cut."""


def prompt_bound(tokenizer: Any, max_model_len: int) -> PromptBound | None:
    """The bound for inputs that reach the tokenizer unchanged; None if nothing is certain."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not _keeps_bytes(backend) or not _template_keeps_text(tokenizer):
        return None
    alphabet, vocabulary = _byte_level_alphabet(), backend.get_vocab(with_added_tokens=False)
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    longest = max([*map(len, vocabulary), *(len(content.encode()) for content in added)])
    dropped = [byte for byte, character in enumerate(alphabet) if character not in vocabulary]
    return PromptBound(["prompt"], (max_model_len - 1) * longest, dropped)


def _keeps_bytes(backend: Any) -> bool:
    model = backend.model
    is_plain = type(model).__name__ == "BPE" and not (model.unk_token or model.dropout or model.end_of_word_suffix)
    # An added token can absorb all white space next to it.
    takes_more = any(token.lstrip or token.rstrip for token in backend.get_added_tokens_decoder().values())
    steps = list(_steps(backend.pre_tokenizer))
    splits_only = bool(steps) and all(
        step["type"] in ("ByteLevel", "Digits") or (step["type"] == "Split" and step["behavior"] != "Removed")
        for step in steps
    )
    is_byte_level = any(step["type"] == "ByteLevel" for step in steps)
    return is_plain and backend.normalizer is None and splits_only and is_byte_level and not takes_more


def _steps(pre_tokenizer: Any) -> Iterator[dict[str, Any]]:
    if pre_tokenizer is not None:
        state = json.loads(pre_tokenizer.__getstate__())
        yield from state["pretokenizers"] if state["type"] == "Sequence" else [state]


def _template_keeps_text(tokenizer: Any) -> bool:
    try:
        rendered = tokenizer.apply_chat_template([{"role": "user", "content": PROBE}], tokenize=False)
    except Exception:
        return False
    return PROBE in rendered


def _byte_level_alphabet() -> list[str]:
    """The character that represents each byte: itself if printable, else the next one from 256 on."""
    prints = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte if byte in prints else next(others)) for byte in range(256)]
