"""A message in one piece, for requests that are not streamed. Pure. Called by `routes`.

In: the events of a `MessageEvents` that ended with `done`. Out: the message that they make, as a client of the stream
would put it together.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from everstream.apis.anthropic.message import (
    Block,
    BlockDelta,
    BlockStart,
    Event,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    SignatureDelta,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
)
from everstream.contract.chat_outputs import as_object


def whole_message(events: Iterable[Event]) -> Message:
    start: Message
    blocks: list[_Block] = []
    for event in events:
        if isinstance(event, MessageStart):
            start = event.message
        elif isinstance(event, BlockStart):
            blocks.append(_Block(event.content_block))
        elif isinstance(event, BlockDelta):
            blocks[event.index].add(event.delta)
        elif isinstance(event, MessageDelta):
            stop, usage = event.delta, event.usage
    return msgspec.structs.replace(
        start,
        content=[block.whole() for block in blocks],
        stop_reason=stop.stop_reason,
        stop_sequence=stop.stop_sequence,
        usage=usage,
    )


class _Block:
    def __init__(self, block: Block) -> None:
        self._block = block
        self._pieces: list[str] = []
        self._signature = ""

    def add(self, delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta) -> None:
        if isinstance(delta, TextDelta):
            self._pieces.append(delta.text)
        elif isinstance(delta, ThinkingDelta):
            self._pieces.append(delta.thinking)
        elif isinstance(delta, InputJsonDelta):
            self._pieces.append(delta.partial_json)
        else:
            self._signature = delta.signature

    def whole(self) -> Block:
        text = "".join(self._pieces)
        if isinstance(self._block, TextBlock):
            return TextBlock(text)
        if isinstance(self._block, ThinkingBlock):
            return ThinkingBlock(text, self._signature)
        return msgspec.structs.replace(self._block, input=Raw(as_object(text).encode()))
