"""One generation as the chunks of a UI message. A state machine without I/O, used by the encoder of streams, and by
`runs` to count chunks.

In: the generation's entries, each once, in order. Out: the chunks that each of them makes, which may be none. The same
entries always make the same chunks, so a client that has seen some is sent the rest after a replay from the first.
"""

from typing import Literal

import msgspec

from everstream.apis.ai_sdk.chunks import (
    Abort,
    AnyChunk,
    Error,
    Finish,
    FinishReason,
    FinishStep,
    InputTokenDetails,
    Metadata,
    OutputTokenDetails,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    Usage,
)
from everstream.contract.chat_outputs import Ending, ToolCall, ending, is_object, one_line, pieces
from everstream.log.entries import TOKEN, Entry, failure
from everstream.log.records import Generation

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}
Kind = Literal["text", "reasoning"]
_STARTS: dict[Kind, type[TextStart | ReasoningStart]] = {"text": TextStart, "reasoning": ReasoningStart}
_DELTAS: dict[Kind, type[TextDelta | ReasoningDelta]] = {"text": TextDelta, "reasoning": ReasoningDelta}
_ENDS: dict[Kind, type[TextEnd | ReasoningEnd]] = {"text": TextEnd, "reasoning": ReasoningEnd}


class MessageChunks:
    """The chunks of one message, or of one more step of it. `start` comes first, then `entry` for each entry."""

    __slots__ = ("_calls", "_count", "_generation", "_is_continuation", "_open")

    def __init__(self, generation: Generation, *, is_continuation: bool) -> None:
        """`is_continuation`: the step goes on from the last message that the client has."""
        self._generation = generation
        self._is_continuation = is_continuation
        self._count = 0
        """Of the parts with text that have begun; the open one, if any, is the last."""
        self._open: Kind | None = None
        self._calls: dict[int, _Call] = {}

    def start(self) -> list[AnyChunk]:
        """What goes out before the model has read the prompt."""
        # The client would take another id for another message, and the same one, in a replay, for all of the message.
        message_id = None if self._is_continuation else f"msg_{self._generation.id}"
        return [Start(message_id), StartStep()]

    def entry(self, entry: Entry) -> list[AnyChunk]:
        if entry.event == TOKEN:
            return self._output(entry.data)
        if entry.event == "done":
            return self._done(ending(entry.data))
        return _failed(entry) if entry.is_terminal else []

    @property
    def open_text(self) -> str | None:
        """The id of the open part, if it is text."""
        return self._id if self._open == "text" else None

    @property
    def _id(self) -> str:
        return str(self._count - 1)

    def _output(self, data: bytes) -> list[AnyChunk]:
        chunks: list[AnyChunk] = []
        for piece in pieces(data):
            if piece.index == 0:
                self._say("reasoning", piece.reasoning, chunks)
                self._say("text", piece.text, chunks)
                for call in piece.tool_calls:
                    self._call(call, chunks)
        return chunks

    def _say(self, kind: Kind, text: str, chunks: list[AnyChunk]) -> None:
        if not text:
            return
        if self._open != kind:
            self._end_part(chunks)
            self._open = kind
            self._count += 1
            chunks.append(_STARTS[kind](self._id))
        chunks.append(_DELTAS[kind](self._id, text))

    def _end_part(self, chunks: list[AnyChunk]) -> None:
        if self._open is not None:
            chunks.append(_ENDS[self._open](self._id))
            self._open = None

    def _call(self, piece: ToolCall, chunks: list[AnyChunk]) -> None:
        call = self._calls.get(piece.index)
        if call is None:
            self._end_part(chunks)
            call_id = piece.id or f"call_{self._generation.id}_{piece.index}"
            call = self._calls[piece.index] = _Call(call_id, piece.function.name or "")
            chunks.append(ToolInputStart(call.id, call.name))
        if piece.function.arguments:
            call.arguments.append(piece.function.arguments)
            chunks.append(ToolInputDelta(call.id, piece.function.arguments))

    def _done(self, end: Ending) -> list[AnyChunk]:
        chunks: list[AnyChunk] = []
        self._end_part(chunks)
        # Not before: more of a call's arguments may come after another call, and a cut message has called nothing.
        chunks += [call.whole() for call in self._calls.values()]
        usage = None if end.usage is None else Metadata(_usage(end))
        return [*chunks, FinishStep(), Finish(self._reason(end.ends[0].finish_reason), usage)]

    def _reason(self, said: str) -> FinishReason:
        reason = _REASONS.get(said, "other")
        return "tool-calls" if self._calls and reason == "stop" else reason


class _Call(msgspec.Struct):
    id: str
    name: str
    arguments: list[str] = []

    def whole(self) -> AnyChunk:
        arguments = "".join(self.arguments) or "{}"
        if is_object(arguments):
            return ToolInputAvailable(tool_call_id=self.id, tool_name=self.name, input=msgspec.Raw(one_line(arguments)))
        return ToolInputError(self.id, self.name, arguments, "the arguments are not a JSON object")


def _failed(end: Entry) -> list[AnyChunk]:
    """Clients ignore `abort`, and would take the message for a complete one."""
    error = failure(end)
    abort: list[AnyChunk] = [Abort(error.message)] if end.event == "cancelled" else []
    return [*abort, Error(error.message)]


def _usage(end: Ending) -> Usage:
    chat = end.chat_usage
    prompt, answer, cached, thought = chat.prompt_tokens, chat.completion_tokens or 0, chat.cached, chat.reasoning
    return Usage(
        prompt,
        answer,
        prompt + answer,
        None if cached is None else InputTokenDetails(prompt - cached, cached),
        None if thought is None else OutputTokenDetails(answer - thought, thought),
    )
