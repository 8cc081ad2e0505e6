"""The chunks of a UI message stream, as far as they are sent here. Pure. Made by `message_chunks`.

The AI SDK checks each against its `uiMessageChunkSchema`.
"""

from typing import Literal

from msgspec import Raw, Struct

from everstream.web.description import raw_field

FinishReason = Literal["stop", "length", "content-filter", "tool-calls", "other"]


class Chunk(Struct, rename="camel", omit_defaults=True, tag_field="type"):
    pass


class Start(Chunk, tag="start"):
    """Without `message_id`, what follows goes into the message that the client already has."""

    message_id: str | None = None


class StartStep(Chunk, tag="start-step"):
    pass


class TextStart(Chunk, tag="text-start"):
    id: str


class TextDelta(Chunk, tag="text-delta", gc=False):
    id: str
    delta: str


class TextEnd(Chunk, tag="text-end"):
    id: str


class ReasoningStart(Chunk, tag="reasoning-start"):
    id: str


class ReasoningDelta(Chunk, tag="reasoning-delta", gc=False):
    id: str
    delta: str


class ReasoningEnd(Chunk, tag="reasoning-end"):
    id: str


class ToolInputStart(Chunk, tag="tool-input-start"):
    tool_call_id: str
    tool_name: str


class ToolInputDelta(Chunk, tag="tool-input-delta", gc=False):
    tool_call_id: str
    input_text_delta: str


class ToolInputAvailable(Chunk, tag="tool-input-available", kw_only=True):
    """`input` is a JSON object. The client now executes the call."""

    tool_call_id: str
    tool_name: str
    input: Raw = raw_field(b"{}")


class ToolInputError(Chunk, tag="tool-input-error"):
    """`input` is the text of what should have been a JSON object."""

    tool_call_id: str
    tool_name: str
    input: str
    error_text: str


class FinishStep(Chunk, tag="finish-step"):
    pass


class InputTokenDetails(Struct, rename="camel", omit_defaults=True):
    no_cache_tokens: int | None = None
    cache_read_tokens: int | None = None


class OutputTokenDetails(Struct, rename="camel", omit_defaults=True):
    text_tokens: int | None = None
    reasoning_tokens: int | None = None


class Usage(Struct, rename="camel", omit_defaults=True):
    """The AI SDK's `LanguageModelUsage`."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokenDetails | None = None
    output_token_details: OutputTokenDetails | None = None


class Metadata(Struct):
    usage: Usage


class Finish(Chunk, tag="finish"):
    finish_reason: FinishReason
    message_metadata: Metadata | None = None


class Abort(Chunk, tag="abort"):
    reason: str


class Error(Chunk, tag="error"):
    """The last chunk of a message that was not completed."""

    error_text: str


AnyChunk = (
    Start
    | StartStep
    | TextStart
    | TextDelta
    | TextEnd
    | ReasoningStart
    | ReasoningDelta
    | ReasoningEnd
    | ToolInputStart
    | ToolInputDelta
    | ToolInputAvailable
    | ToolInputError
    | FinishStep
    | Finish
    | Abort
    | Error
)
