"""Anthropic's message, and the events of which a streamed one consists. Pure. Made by `events` and `whole_message`."""

from typing import Literal

from msgspec import Raw, Struct

from everstream.web.description import raw_field

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class TextBlock(Struct, tag="text"):
    text: str = ""


class ThinkingBlock(Struct, tag="thinking"):
    thinking: str = ""
    signature: str = ""


class ToolUseBlock(Struct, tag="tool_use"):
    """`input` is a JSON object, or in an event an empty one."""

    id: str
    name: str
    input: Raw = raw_field(b"{}")


Block = TextBlock | ThinkingBlock | ToolUseBlock


class OutputTokensDetails(Struct):
    thinking_tokens: int


class Usage(Struct, omit_defaults=True):
    """What the prompt cache held is not in `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int | None = None
    output_tokens_details: OutputTokensDetails | None = None


class Message(Struct, tag="message", kw_only=True):
    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: Usage


class MessageStart(Struct, tag="message_start"):
    message: Message


class BlockStart(Struct, tag="content_block_start"):
    index: int
    content_block: Block


class TextDelta(Struct, tag="text_delta", gc=False):
    text: str


class ThinkingDelta(Struct, tag="thinking_delta", gc=False):
    thinking: str


class SignatureDelta(Struct, tag="signature_delta", gc=False):
    signature: str


class InputJsonDelta(Struct, tag="input_json_delta", gc=False):
    partial_json: str


class BlockDelta(Struct, tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(Struct, tag="content_block_stop"):
    index: int


class Stop(Struct):
    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, tag="message_delta"):
    delta: Stop
    usage: Usage


class MessageStop(Struct, tag="message_stop"):
    pass


class ErrorDetails(Struct):
    """Everstream's own code and the field at fault; SDKs give the code as `error_code`."""

    error_code: str
    param: str | None


class Error(Struct):
    type: str
    message: str
    details: ErrorDetails


class ErrorBody(Struct, tag="error", omit_defaults=True):
    """A response's body, or the last event of a stream that has failed."""

    error: Error
    request_id: str | None = None


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | ErrorBody
