"""One generation as the events of an Anthropic message. A state machine without I/O, used by the encoder of streams and
by `whole_message`.

In: the generation's entries, each once, in order. Out: the events that each of them makes, which may be none. The same
entries always make the same events, so a client that has seen some is sent the rest after a replay from the first.
"""

from everstream.apis.anthropic.errors import error_body
from everstream.apis.anthropic.message import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    Event,
    InputJsonDelta,
    Message,
    MessageDelta,
    MessageStart,
    MessageStop,
    OutputTokensDetails,
    SignatureDelta,
    Stop,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    Usage,
)
from everstream.contract.chat_outputs import ChoiceEnd, Ending, ToolCall, ending, is_object, pieces
from everstream.log.entries import TOKEN, Entry, failure
from everstream.log.records import Generation

SIGNATURE = "everstream"
"""Of thinking blocks. Some clients send back only signed ones; nothing here checks it."""


class MessageEvents:
    """The events of one message. `start` comes first, then `entry` for each entry."""

    __slots__ = ("_calls", "_count", "_generation", "_held", "_last_arguments", "_open")

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._count = 0
        """Of blocks that have begun; the open one, if any, is the last."""
        self._open: Block | None = None
        self._calls: dict[int, int] = {}
        """Tool calls' indices, and those of their blocks."""
        self._last_arguments: list[str] = []
        self._held: list[str] = []
        """Text that came amid a tool call. Its block begins after the call's has ended."""

    def start(self) -> list[Event]:
        """What goes out before the model has read the prompt; so the count of its tokens comes with the last events."""
        message = Message(id=f"msg_{self._generation.id}", model=self._generation.model, usage=Usage(0, 0))
        return [MessageStart(message)]

    def entry(self, entry: Entry) -> list[Event]:
        if entry.event == TOKEN:
            return self.output(entry.data)
        if entry.event == "done":
            return self._done(ending(entry.data))
        return [error_body(failure(entry))] if entry.is_terminal else []

    @property
    def open_text(self) -> int | None:
        """The index of the open block, if it is text."""
        return self._count - 1 if isinstance(self._open, TextBlock) else None

    def output(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for piece in pieces(data):
            if piece.index == 0:
                self._think(piece.reasoning, events)
                self._say(piece.text, events)
                for call in piece.tool_calls:
                    self._call(call, events)
        return events

    def _think(self, thinking: str, events: list[Event]) -> None:
        if not thinking:
            return
        if not isinstance(self._open, ThinkingBlock):
            self._begin(ThinkingBlock(), events)
        events.append(BlockDelta(self._count - 1, ThinkingDelta(thinking)))

    def _say(self, text: str, events: list[Event]) -> None:
        if not text:
            return
        if isinstance(self._open, ToolUseBlock):
            self._held.append(text)
            return
        if not isinstance(self._open, TextBlock):
            self._begin(TextBlock(), events)
        events.append(BlockDelta(self._count - 1, TextDelta(text)))

    def _call(self, call: ToolCall, events: list[Event]) -> None:
        if call.index not in self._calls:
            name = call.function.name or ""
            self._begin(ToolUseBlock(call.id or f"toolu_{self._generation.id}_{call.index}", name), events)
            self._calls[call.index] = self._count - 1
            self._last_arguments = []
        if call.function.arguments:
            self._last_arguments.append(call.function.arguments)
            events.append(BlockDelta(self._calls[call.index], InputJsonDelta(call.function.arguments)))

    def _begin(self, block: Block, events: list[Event]) -> None:
        self._end_block(events)
        events.append(BlockStart(self._count, block))
        self._open = block
        self._count += 1

    def _end_block(self, events: list[Event]) -> None:
        """End the open block, if any, and then say what was held back during a tool call."""
        if self._open is None:
            return
        at = self._count - 1
        if isinstance(self._open, ThinkingBlock):
            events.append(BlockDelta(at, SignatureDelta(SIGNATURE)))
        events.append(BlockStop(at))
        self._open = None
        if self._held:
            text = "".join(self._held)
            self._held = []
            self._say(text, events)
            self._end_block(events)

    def _done(self, end: Ending) -> list[Event]:
        events: list[Event] = []
        if not self._count:
            # Some clients read the first block without a look at their number.
            self._begin(TextBlock(), events)
        self._end_block(events)
        return [*events, MessageDelta(self._stop(end.ends[0]), _usage(end)), MessageStop()]

    def _stop(self, end: ChoiceEnd) -> Stop:
        if end.finish_reason == "length":
            return Stop("max_tokens", None)
        # A stop sequence may have cut the last call.
        if self._calls and (not isinstance(end.stop_reason, str) or is_object("".join(self._last_arguments))):
            return Stop("tool_use", None)
        if isinstance(end.stop_reason, str):
            return Stop("stop_sequence", end.stop_reason)
        return Stop("end_turn", None)


def _usage(end: Ending) -> Usage:
    chat = end.chat_usage
    details = None if chat.reasoning is None else OutputTokensDetails(chat.reasoning)
    return Usage(chat.prompt_tokens - (chat.cached or 0), chat.completion_tokens or 0, chat.cached, details)
