"""Turns UI messages into a chat's, in the format of vLLM and OpenAI. Pure. Called by `requests`.

As in the AI SDK's own `convertToModelMessages`, an assistant's message is as many turns as it has steps, each followed
by the results of its tool calls. Calls without a result, for example of an answer that was stopped, are left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from everstream.apis.ai_sdk.request_types import Message, Part
from everstream.contract.chat_outputs import is_object
from everstream.errors import InvalidInput
from everstream.log.entries import string_or_json

DENIED = "The user has denied this call."
_IGNORED = ("custom", "reasoning-file", "source-document", "source-url")
_DATA = "data-"
"""How the types of parts begin that an application defines for itself."""
Turn = dict[str, Any]


def chat_messages(messages: Sequence[Message]) -> list[Turn]:
    """Raises InvalidInput."""
    return [turn for at, message in enumerate(messages) for turn in _turns(message, f"messages[{at}]")]


def _turns(message: Message, place: str) -> Iterator[Turn]:
    if message.role == "system":
        yield {"role": "system", "content": _joined(message.parts, "text")}
    elif message.role == "user":
        yield _user(message.parts, place)
    else:
        yield from _assistant(message.parts, place)


def _user(parts: Sequence[Part], place: str) -> Turn:
    content = [_content(part, f"{place}.parts[{at}]") for at, part in enumerate(parts) if not _is_ignored(part)]
    is_text = len(content) == 1 and content[0]["type"] == "text"
    return {"role": "user", "content": content[0]["text"] if is_text else content or ""}


def _content(part: Part, place: str) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type != "file":
        raise _unsupported(part, place)
    # `image`, `image/*` and `image/png` are all allowed.
    if part.media_type.partition("/")[0] != "image" or not part.url:
        raise InvalidInput(f"{place}: of files, only images with a url are supported", param=place)
    return {"type": "image_url", "image_url": {"url": part.url}}


def _assistant(parts: Sequence[Part], place: str) -> Iterator[Turn]:
    step: list[Part] = []
    for at, part in enumerate(parts):
        if part.type == "step-start":
            yield from _step(step)
            step = []
        elif part.type == "steering-message":
            yield from _step(step)
            yield _user(part.parts, f"{place}.parts[{at}]")
            step = []
        elif part.type in ("text", "reasoning") or part.is_tool:
            step.append(part)
        elif not _is_ignored(part):
            raise _unsupported(part, f"{place}.parts[{at}]")
    yield from _step(step)


def _step(parts: Sequence[Part]) -> Iterator[Turn]:
    text, reasoning = _joined(parts, "text"), _joined(parts, "reasoning")
    calls = [(part, result) for part in parts if part.is_tool and (result := _result(part)) is not None]
    if not (text or reasoning or calls):
        return
    turn: Turn = {"role": "assistant", "content": text or None}
    if reasoning:
        turn["reasoning"] = reasoning
    if calls:
        turn["tool_calls"] = [_call(part) for part, _ in calls]
    yield turn
    for part, result in calls:
        yield {"role": "tool", "tool_call_id": part.tool_call_id, "content": result}


def _joined(parts: Sequence[Part], kind: str) -> str:
    return "".join(part.text for part in parts if part.type == kind)


def _result(part: Part) -> str | None:
    """What the model is told of a tool call; None: the call has no result."""
    if part.state == "output-available":
        return string_or_json(bytes(part.output))
    if part.state == "output-error":
        # Chat templates have no place for errors, but the model should know.
        return f"Error: {part.error_text or ''}"
    is_denied = part.approval is not None and part.approval.approved is False
    if part.state == "output-denied" or (part.state == "approval-responded" and is_denied):
        return (part.approval and part.approval.reason) or DENIED
    return None


def _call(part: Part) -> dict[str, Any]:
    function = {"name": part.tool, "arguments": _arguments(part)}
    return {"id": part.tool_call_id, "type": "function", "function": function}


def _arguments(part: Part) -> str:
    """Always an object, because chat templates take it apart."""
    value = part.input if bytes(part.input) != b"null" else part.raw_input
    text = bytes(value).decode()
    if text == "null":
        return "{}"
    return text if is_object(text) else msgspec.json.encode({"INVALID_JSON": string_or_json(bytes(value))}).decode()


def _is_ignored(part: Part) -> bool:
    return part.type in _IGNORED or part.type.startswith(_DATA)


def _unsupported(part: Part, place: str) -> InvalidInput:
    return InvalidInput(f"{place}: parts of the type {part.type[:100]!r} are not supported here", param=place)
