"""Turns Anthropic's messages into a chat's, in the format of vLLM and OpenAI. Pure. Called by `requests`."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from msgspec import Struct

from everstream.apis.anthropic.request_types import (
    AssistantMessage,
    Base64Source,
    ImageBlock,
    Message,
    SystemMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)
from everstream.log.entries import encode_json

BILLING_HEADER = "x-anthropic-billing-header"
"""Claude Code begins a system block with it. The rest changes with each request, and would defeat prefix caching."""


class Url(Struct):
    url: str


class TextPart(Struct, tag="text"):
    text: str


class ImagePart(Struct, tag="image_url"):
    image_url: Url


class Function(Struct):
    name: str
    arguments: str


class FunctionCall(Struct, tag="function"):
    id: str
    function: Function


class ChatMessage(Struct, omit_defaults=True):
    role: str
    content: str | list[TextPart | ImagePart] | None = None
    reasoning: str = ""
    tool_calls: list[FunctionCall] = []
    tool_call_id: str = ""


def chat_messages(system: str | list[TextBlock] | None, messages: Sequence[Message]) -> list[ChatMessage]:
    """One turn's consecutive messages of the same role count as one message, as in Anthropic's API."""
    turns = _system(_blocks(system or []))
    for kind, group in groupby(messages, key=type):
        blocks = [block for message in group for block in _blocks(message.content)]
        turns += _CONVERT[kind](blocks)
    return turns


def _blocks(content: str | Iterable[Any]) -> list[Any]:
    """Without blocks of empty text, which mean nothing."""
    blocks = [TextBlock(content)] if isinstance(content, str) else content
    return [block for block in blocks if not isinstance(block, TextBlock) or block.text]


def _system(blocks: list[TextBlock]) -> list[ChatMessage]:
    texts = [block.text for block in blocks if not block.text.startswith(BILLING_HEADER)]
    return [ChatMessage("system", "\n".join(texts))] if texts else []


def _user(blocks: list[Any]) -> list[ChatMessage]:
    """Tool results come first, because chat templates want them next to their calls."""
    results = [block for block in blocks if isinstance(block, ToolResultBlock)]
    images = [block for result in results for block in _blocks(result.content or []) if isinstance(block, ImageBlock)]
    rest = images + [block for block in blocks if not isinstance(block, ToolResultBlock)]
    turns = [ChatMessage("tool", _result_text(result), tool_call_id=result.tool_use_id) for result in results]
    if rest or not results:
        turns.append(ChatMessage("user", _content(rest)))
    return turns


def _content(blocks: list[TextBlock | ImageBlock]) -> str | list[TextPart | ImagePart]:
    if not blocks:
        return ""
    first = blocks[0]
    if len(blocks) == 1 and isinstance(first, TextBlock):
        return first.text
    return [TextPart(block.text) if isinstance(block, TextBlock) else ImagePart(_url(block)) for block in blocks]


def _url(image: ImageBlock) -> Url:
    source = image.source
    return Url(f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64Source) else source.url)


def _result_text(result: ToolResultBlock) -> str:
    text = "\n".join(block.text for block in _blocks(result.content or []) if isinstance(block, TextBlock))
    # Chat templates have no place for is_error, but the model should know.
    return f"Error: {text}" if result.is_error else text


def _assistant(blocks: list[Any]) -> list[ChatMessage]:
    calls = [block for block in blocks if isinstance(block, ToolUseBlock)]
    text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
    reasoning = "".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock))
    content = None if not text and (calls or reasoning) else text
    return [ChatMessage("assistant", content, reasoning, [_call(call) for call in calls])]


def _call(call: ToolUseBlock) -> FunctionCall:
    return FunctionCall(call.id, Function(call.name, encode_json(call.input).decode()))


_CONVERT: dict[type, Any] = {UserMessage: _user, AssistantMessage: _assistant, SystemMessage: _system}
