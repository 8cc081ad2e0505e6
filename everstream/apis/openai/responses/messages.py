"""Turns the items of a conversation into chat messages. Pure. Called by `requests`.

An assistant's turn may span several items: reasoning, a message, function calls. They become one chat message, as chat
templates expect.
"""

from typing import Any

from everstream.apis.openai.responses.items import Item, Part

Message = dict[str, Any]


def chat_messages(items: list[Item], instructions: str | None) -> list[Message]:
    """`instructions` come first, as a system message."""
    messages: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        if item.type == "function_call_output":
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.parts)})
        elif item.type == "message" and item.role != "assistant":
            messages.append({"role": item.role, "content": _content(item.parts)})
        else:
            _add_to_turn(messages, item)
    return messages


def continues(items: list[Item]) -> bool:
    """Whether the model is to go on with the last message: an assistant's, which its status says is unfinished."""
    last = items[-1] if items else None
    return (
        last is not None
        and last.type == "message"
        and last.role == "assistant"
        and last.status in ("in_progress", "incomplete")
    )


def _add_to_turn(messages: list[Message], item: Item) -> None:
    """Add a part of an assistant's turn to the last message, if that is one and lacks this part."""
    if item.type == "function_call":
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        _turn_without(messages, None).setdefault("tool_calls", []).append(call)
    elif item.type == "reasoning":
        _turn_without(messages, "reasoning")["reasoning"] = "".join(item.texts)
    else:
        _turn_without(messages, "content")["content"] = "".join(item.texts)


def _turn_without(messages: list[Message], name: str | None) -> Message:
    if not messages or messages[-1]["role"] != "assistant" or name in messages[-1]:
        messages.append({"role": "assistant"})
    return messages[-1]


def _content(parts: list[Part]) -> str | list[dict[str, Any]]:
    """One text is a string, because not every chat template takes a list."""
    if len(parts) <= 1 and all(part.type != "input_image" for part in parts):
        return "".join(part.plain_text for part in parts)
    return [_chat_part(part) for part in parts]


def _chat_part(part: Part) -> dict[str, Any]:
    if part.type != "input_image":
        return {"type": "text", "text": part.plain_text}
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
