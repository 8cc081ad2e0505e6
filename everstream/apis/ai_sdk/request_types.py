"""The body that the AI SDK's transports post, as far as it is honoured. Pure. Decoded by `requests`.

Other fields are skipped, at every level.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from everstream.web.description import raw_field


class Approval(Struct):
    """What a person said about a tool call."""

    approved: bool | None = None
    reason: str | None = None


class Part(Struct, rename="camel"):
    """Of a message. Which fields it has depends on `type`, and a tool call's on its `state`."""

    type: str
    text: str = ""
    url: str = ""
    media_type: str = ""
    tool_name: str = ""
    tool_call_id: str = ""
    state: str | None = None
    input: Raw = raw_field(b"null")
    raw_input: Raw = raw_field(b"null")
    output: Raw = raw_field(b"null")
    error_text: str | None = None
    approval: Approval | None = None
    parts: list["Part"] = []

    @property
    def is_tool(self) -> bool:
        return self.type.startswith("tool-") or self.type == "dynamic-tool"

    @property
    def tool(self) -> str:
        """The tool's name, which may be part of the type."""
        return self.tool_name or self.type.removeprefix("tool-")


class Message(Struct):
    """A `UIMessage`."""

    role: Literal["system", "user", "assistant"]
    parts: list[Part]


JsonSchema = Annotated[dict[str, Raw], Meta(description="a JSON schema")]


class ClientTool(Struct, rename="camel"):
    """A tool that the client executes. `parameters` is what some clients call `input_schema`."""

    description: str | None = None
    input_schema: JsonSchema | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class ToolChoiceTool(Struct, rename="camel", tag="tool"):
    tool_name: str


class ChatRequest(Struct, rename="camel"):
    """`id` is the chat's. `tools`: by their names, or a list in OpenAI's format. The rest are the AI SDK's names for
    inputs of the model, which may also be given by its own."""

    messages: list[Message]
    id: str | None = None
    trigger: Any = None
    message_id: Any = None
    system: str | None = None
    tools: dict[str, ClientTool] | list[Raw] | None = None
    tool_choice: Literal["auto", "none", "required"] | ToolChoiceTool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop_sequences: list[str] | None = None
    seed: int | None = None
