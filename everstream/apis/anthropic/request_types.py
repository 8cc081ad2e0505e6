"""The bodies of Anthropic's requests, as far as they are honoured. Pure. Decoded by `requests`.

Other fields are skipped, at every level, so that a response's blocks can be sent back as they came.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from everstream.web.description import REQUIRED, raw_field

Positive = Annotated[int, Meta(ge=1)]


class TextBlock(Struct, tag="text"):
    text: str


class Base64Source(Struct, tag="base64"):
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(Struct, tag="url"):
    url: str


class ImageBlock(Struct, tag="image"):
    source: Base64Source | UrlSource


class ToolResultBlock(Struct, tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None


class ToolUseBlock(Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Raw] = {}


class ThinkingBlock(Struct, tag="thinking"):
    thinking: str


class RedactedThinkingBlock(Struct, tag="redacted_thinking"):
    pass


UserBlock = TextBlock | ImageBlock | ToolResultBlock
AssistantBlock = TextBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock


class UserMessage(Struct, tag="user", tag_field="role"):
    content: str | list[UserBlock]


class AssistantMessage(Struct, tag="assistant", tag_field="role"):
    content: str | list[AssistantBlock]


class SystemMessage(Struct, tag="system", tag_field="role"):
    content: str | list[TextBlock]


Message = UserMessage | AssistantMessage | SystemMessage


class Tool(Struct):
    """A client's tool. `type` can only be `custom`: Anthropic's own tools are not supported."""

    name: Annotated[str, REQUIRED] = ""
    description: str | None = None
    input_schema: Annotated[Raw, Meta(extra_json_schema={"type": "object"}), REQUIRED] = raw_field(b"null")
    strict: bool | None = None
    type: str | None = None


class ToolChoiceAuto(Struct, tag="auto"):
    disable_parallel_tool_use: bool | None = None


class ToolChoiceAny(Struct, tag="any"):
    disable_parallel_tool_use: bool | None = None


class ToolChoiceTool(Struct, tag="tool"):
    name: str
    disable_parallel_tool_use: bool | None = None


class ToolChoiceNone(Struct, tag="none"):
    disable_parallel_tool_use: bool | None = None


class ThinkingEnabled(Struct, tag="enabled"):
    budget_tokens: Positive


class ThinkingAdaptive(Struct, tag="adaptive"):
    pass


class ThinkingDisabled(Struct, tag="disabled"):
    pass


class ThinkingBetweenTools(Struct, tag="between_tools"):
    """No thinking, but reports between tool calls, which only Anthropic's models write."""


class JsonFormat(Struct, tag="json_schema"):
    schema: dict[str, Raw]


class OutputConfig(Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class Prompt(Struct):
    """The body of /v1/messages/count_tokens. `output_format` is what earlier SDKs sent for `output_config.format`;
    `chat_template_kwargs` is vLLM's."""

    messages: list[Message]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoiceAuto | ToolChoiceAny | ToolChoiceTool | ToolChoiceNone | None = None
    thinking: ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled | ThinkingBetweenTools | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesRequest(Prompt, kw_only=True):
    """The body of /v1/messages. `cache_salt` is vLLM's."""

    max_tokens: Positive
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    cache_salt: str | None = None
