"""Token ids to text as they come, stop strings included: what vLLM's own detokenizer does, with public APIs only.

Used where vLLM's can't be (see `vllm_seam`), and equivalent to it, so that each can resume after the other's output. A
token's text is what it adds to the text of those before it; a token that leaves a character incomplete adds nothing.
"""

from typing import Any, Literal, Protocol

PROMPT_TAIL = 64
"""Prompt tokens that the answer's first text may depend on, for example for a space between two words."""
BROKEN = "\ufffd"
"""How a tokenizer renders an incomplete character."""


class Detokenizer(Protocol):
    """What the chat model needs from a detokenizer; also what vLLM calls on a request's."""

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> str | None:
        """Take in tokens. Returns a stop string if found. `stop_terminated`: the last one ends the answer, unshown."""

    def get_next_output_text(self, finished: bool, delta: Literal[True]) -> str:
        """The text since the last call. Text that may begin a stop string is held back until `finished`."""

    def num_output_tokens(self) -> int: ...


class PublicDetokenizer:
    def __init__(self, tokenizer: Any, prompt: list[int], stop: list[str] | None) -> None:
        # The Rust tokenizer inside a transformers tokenizer does not clean up spaces, and neither does vLLM.
        self._tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
        self._stop = stop or []
        self._held_chars = max(map(len, self._stop), default=1) - 1
        self._tokens = 0
        self._text = ""
        self._sent_chars = 0
        self._prefix_ids = prompt[-PROMPT_TAIL:]
        self._prefix = self._decode(self._prefix_ids)
        self._new_ids: list[int] = []

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> str | None:
        shown = new_token_ids[:-1] if stop_terminated else new_token_ids
        for token in shown:
            self._tokens += 1
            if stop := self._add_text(self._text_of(token)):
                return stop
        self._tokens += len(new_token_ids) - len(shown)
        return None

    def get_next_output_text(self, finished: bool, delta: Literal[True]) -> str:  # noqa: ARG002
        begin, end = self._sent_chars, len(self._text) - (0 if finished else self._held_chars)
        self._sent_chars = max(begin, end)
        return self._text[begin : self._sent_chars]

    def num_output_tokens(self) -> int:
        return self._tokens

    def _text_of(self, token: int) -> str:
        self._new_ids.append(token)
        text = self._decode(self._prefix_ids + self._new_ids)
        if text.endswith(BROKEN) or len(text) <= len(self._prefix):
            return ""
        if not text.startswith(self._prefix):
            # The tokenizer rewrote earlier text, which was already sent. vLLM starts afresh here, too.
            self._prefix_ids, self._prefix, self._new_ids = [], "", []
            return self._text_of(token)
        added = text[len(self._prefix) :]
        self._prefix_ids, self._new_ids = self._new_ids, []
        self._prefix = self._decode(self._prefix_ids)
        return added

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _add_text(self, text: str) -> str | None:
        """Returns the stop string that this text completes first, and cuts off the text from there."""
        searched = len(self._text)
        self._text += text
        if not text:
            return None
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := self._find(stop, searched)) >= 0]
        if not found:
            return None
        _, at, stop = min(found, key=lambda each: each[0])
        self._text = self._text[:at]
        return stop

    def _find(self, stop: str, searched: int) -> int:
        return self._text.find(stop, max(0, searched - len(stop) + 1))
