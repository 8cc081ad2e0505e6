"""One generation as the events of an AG-UI run. A state machine without I/O, used by `encoder`.

In: the generation's entries, each once, in order. Out: the events that each of them makes, which may be none. The same
entries always make the same events, so a client that has seen some is sent the rest after a replay from the first.
"""

import msgspec

from everstream.apis.ag_ui.events import (
    AnyEvent,
    Cancelled,
    Finish,
    Metadata,
    ReasoningEnd,
    ReasoningMessageContent,
    ReasoningMessageEnd,
    ReasoningMessageStart,
    ReasoningStart,
    RunError,
    RunFinished,
    RunStarted,
    Success,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
    ToolInput,
    ToolInputAvailable,
    Usage,
)
from everstream.contract.chat_outputs import Ending, ToolCall, ending, is_object, one_line, pieces
from everstream.log.entries import TOKEN, Entry, failure

CALLS = "tool_calls"
"""The finish reason of an answer that calls tools."""


class Run(msgspec.Struct, rename="camel", frozen=True, tag="ag-ui"):
    """The client's names for a generation and its chat. The record of a generation that was started by this API."""

    thread_id: str
    run_id: str


class RunEvents:
    """`start` comes first, then `entry` for each entry."""

    __slots__ = ("_calls", "_generation", "_messages", "_reasoning", "_run", "_text")

    def __init__(self, generation: str, run: Run) -> None:
        self._generation = generation
        self._run = run
        self._messages = 0
        """How many have begun."""
        self._text = self._reasoning = ""
        """The id of the open message of this kind; empty: none is open."""
        self._calls: dict[int, _Call] = {}

    def start(self) -> list[AnyEvent]:
        """What goes out before the model has read the prompt."""
        return [RunStarted(self._run.thread_id, self._run.run_id)]

    def entry(self, entry: Entry) -> list[AnyEvent]:
        if entry.event == TOKEN:
            return self._output(entry.data)
        if not entry.is_terminal:
            return []
        if entry.event == "done":
            return self._done(ending(entry.data))
        if entry.event == "cancelled":
            return [*self._end_messages(), *self._end_calls(), self._finished(Cancelled())]
        error = failure(entry)
        return [RunError(error.message, error.code)]

    @property
    def open_text(self) -> str:
        """The id of the open message with text; empty: there is none."""
        return self._text

    def _output(self, data: bytes) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        for piece in pieces(data):
            if piece.index == 0:
                if piece.reasoning:
                    events += self._think(piece.reasoning)
                if piece.text:
                    events += self._say(piece.text)
                for call in piece.tool_calls:
                    events += self._call(call)
        return events

    def _next_id(self) -> str:
        self._messages += 1
        return f"msg_{self._generation}_{self._messages}"

    def _think(self, text: str) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        if not self._reasoning:
            events += self._end_messages()
            self._reasoning = self._next_id()
            events += [ReasoningStart(self._reasoning), ReasoningMessageStart(self._reasoning, "reasoning")]
        return [*events, ReasoningMessageContent(self._reasoning, text)]

    def _say(self, text: str) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        if not self._text:
            events += self._end_messages()
            self._text = self._next_id()
            events.append(TextMessageStart(self._text, "assistant"))
        return [*events, TextMessageContent(self._text, text)]

    def _end_messages(self) -> list[AnyEvent]:
        text, reasoning = self._text, self._reasoning
        self._text = self._reasoning = ""
        if reasoning:
            return [ReasoningMessageEnd(reasoning), ReasoningEnd(reasoning)]
        return [TextMessageEnd(text)] if text else []

    def _call(self, piece: ToolCall) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        call = self._calls.get(piece.index)
        if call is None:
            # A call belongs to the message with the text before it, or to one of its own.
            parent = self._text or next((each.parent for each in self._calls.values()), "") or self._next_id()
            events += self._end_messages()
            call_id = piece.id or f"call_{self._generation}_{piece.index}"
            call = self._calls[piece.index] = _Call(call_id, piece.function.name or "", parent)
            events.append(ToolCallStart(call.id, call.name, parent))
        if piece.function.arguments:
            call.arguments.append(piece.function.arguments)
            events.append(ToolCallArgs(call.id, piece.function.arguments))
        return events

    def _end_calls(self) -> list[AnyEvent]:
        # Not before: more of a call's arguments may come after another call.
        return [ToolCallEnd(call.id) for call in self._calls.values()]

    def _done(self, end: Ending) -> list[AnyEvent]:
        pending = [call.id for call in self._calls.values() if call.is_whole]
        asked = [call.asked() for call in self._calls.values()]
        return [*self._end_messages(), *self._end_calls(), *asked, self._finished(Success(pending), end)]

    def _finished(self, outcome: Success | Cancelled, end: Ending | None = None) -> RunFinished:
        usage = [] if end is None or end.usage is None else [_usage(end)]
        reason = end.ends[0].finish_reason if end else CALLS
        # With that, TanStack AI's client would wait for a server that executes the calls.
        metadata = None if reason == CALLS else Metadata(Finish(reason))
        return RunFinished(self._run.thread_id, self._run.run_id, outcome, usage, metadata)


class _Call(msgspec.Struct):
    """`parent`: the id of the message that it belongs to."""

    id: str
    name: str
    parent: str
    arguments: list[str] = []

    @property
    def is_whole(self) -> bool:
        return is_object(self._input)

    @property
    def _input(self) -> str:
        return "".join(self.arguments) or "{}"

    def asked(self) -> AnyEvent:
        """What has the client execute the call, or tells it and the model that it can't be."""
        if self.is_whole:
            return ToolInputAvailable(
                "tool-input-available", ToolInput(self.id, self.name, msgspec.Raw(one_line(self._input)))
            )
        return ToolCallResult(f"result_{self.id}", self.id, "Error: the arguments are not a JSON object", "tool")


def _usage(end: Ending) -> Usage:
    chat = end.chat_usage
    prompt, answer = chat.prompt_tokens, chat.completion_tokens or 0
    return Usage(prompt, answer, prompt + answer, chat.reasoning, chat.cached)
