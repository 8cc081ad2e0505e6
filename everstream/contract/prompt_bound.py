"""How long a prompt may be: the engine's knowledge of its tokenizer, in terms that web processes can use. Pure."""

import msgspec

LONG_TEXT_BYTES = 32 << 10
"""Text above this takes a tokenizer tens of milliseconds or more. Shorter text does not wait for it."""


class PromptBound(msgspec.Struct, frozen=True):
    """The most that could fit into a model's context, whatever the text: `max_bytes` of UTF-8 in each of these inputs.

    Bytes in `dropped` don't count: the tokenizer drops them.
    """

    inputs: list[str]
    max_bytes: int
    dropped: list[int] = []

    def exceeded_by(self, text: str) -> bool:
        return len(text.encode().translate(None, bytes(self.dropped))) > self.max_bytes
