"""Token ids to text as they come, stop strings included: what vLLM's own detokenizer does, on public parts alone.

Used where vLLM's can't be (see `vllm_seam`), and equal to it, so that either goes on from what the other delivered. The
text of a token is what it adds to the text of those before it; one whose character is not whole yet adds nothing.
"""

from typing import Any, Literal, Protocol

PROMPT_TAIL = 64
"""Tokens of the prompt that the answer's first text may depend on, as by a space between two words."""
BROKEN = "\ufffd"
"""How a tokenizer writes a character that is not whole."""


class Detokenizer(Protocol):
    """What the chat model needs of one; also what vLLM calls of a request's."""

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> str | None:
        """Take in tokens. `stop_terminated`: the last one ends the answer and is not shown. A stop string if found."""

    def get_next_output_text(self, finished: bool, delta: Literal[True]) -> str:
        """The text since the last call; what may begin a stop string is held back until `finished`."""

    def num_output_tokens(self) -> int: ...


class PublicDetokenizer:
    def __init__(self, tokenizer: Any, prompt: list[int], stop: list[str] | None) -> None:
        # The Rust tokenizer inside one of transformers' does not clean up spaces, nor does vLLM.
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
            # A tokenizer that writes earlier text anew, which was sent. vLLM begins afresh here, too.
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
        """The stop string that this text completes first, cut off with all that follows it."""
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
