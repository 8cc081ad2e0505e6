"""The events of AG-UI's protocol 1.0, as far as they are sent here. Pure. Made by `run_events`.

Clients check each against its schema in `@ag-ui/core`.
"""

from typing import Any, Literal

from msgspec import Struct


class Event(Struct, rename="camel", omit_defaults=True, tag_field="type"):
    pass


class RunStarted(Event, tag="RUN_STARTED"):
    thread_id: str
    run_id: str


class TextMessageStart(Event, tag="TEXT_MESSAGE_START"):
    message_id: str
    role: Literal["assistant"]


class TextMessageContent(Event, tag="TEXT_MESSAGE_CONTENT", gc=False):
    message_id: str
    delta: str


class TextMessageEnd(Event, tag="TEXT_MESSAGE_END"):
    message_id: str


class ReasoningStart(Event, tag="REASONING_START"):
    message_id: str


class ReasoningMessageStart(Event, tag="REASONING_MESSAGE_START"):
    message_id: str
    role: Literal["reasoning"]


class ReasoningMessageContent(Event, tag="REASONING_MESSAGE_CONTENT", gc=False):
    message_id: str
    delta: str


class ReasoningMessageEnd(Event, tag="REASONING_MESSAGE_END"):
    message_id: str


class ReasoningEnd(Event, tag="REASONING_END"):
    message_id: str


class ToolCallStart(Event, tag="TOOL_CALL_START"):
    tool_call_id: str
    tool_call_name: str
    parent_message_id: str


class ToolCallArgs(Event, tag="TOOL_CALL_ARGS", gc=False):
    tool_call_id: str
    delta: str


class ToolCallEnd(Event, tag="TOOL_CALL_END"):
    tool_call_id: str


class ToolCallResult(Event, tag="TOOL_CALL_RESULT"):
    """In place of the client's, for a call that it can't execute."""

    message_id: str
    tool_call_id: str
    content: str
    role: Literal["tool"]


class ToolInput(Struct, rename="camel"):
    tool_call_id: str
    tool_name: str
    input: Any


class ToolInputAvailable(Event, tag="CUSTOM"):
    """Has TanStack AI's clients execute the call. Others ignore it."""

    name: Literal["tool-input-available"]
    value: ToolInput


class Success(Struct, rename="camel", tag="success", omit_defaults=True):
    """`pending_tool_call_ids`: of the calls that the client is to execute."""

    pending_tool_call_ids: list[str] = []


class Cancelled(Struct, tag="cancelled"):
    pass


class Usage(Struct, rename="camel", omit_defaults=True):
    """AG-UI's `TokenUsage`."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    reasoning_tokens: int | None = None
    cached_input_tokens: int | None = None


class Finish(Struct, rename="camel"):
    finish_reason: str


class Metadata(Struct):
    """`tanstack`: where TanStack AI's clients look for why the model stopped."""

    tanstack: Finish


class RunFinished(Event, tag="RUN_FINISHED"):
    thread_id: str
    run_id: str
    outcome: Success | Cancelled
    usage: list[Usage] = []
    metadata: Metadata | None = None


class RunError(Event, tag="RUN_ERROR"):
    message: str
    code: str


AnyEvent = (
    RunStarted
    | TextMessageStart
    | TextMessageContent
    | TextMessageEnd
    | ReasoningStart
    | ReasoningMessageStart
    | ReasoningMessageContent
    | ReasoningMessageEnd
    | ReasoningEnd
    | ToolCallStart
    | ToolCallArgs
    | ToolCallEnd
    | ToolCallResult
    | ToolInputAvailable
    | RunFinished
    | RunError
)
