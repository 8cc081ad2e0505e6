"""Turns AG-UI's messages into a chat's, in the format of vLLM and OpenAI. Pure. Called by `requests`."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from everstream.apis.ag_ui.request_types import Call, Context, Message, Part
from everstream.contract.chat_outputs import is_object
from everstream.errors import InvalidInput

Turn = dict[str, Any]


def chat_messages(messages: Sequence[Message], context: Sequence[Context]) -> list[Turn]:
    """`context`: what the application tells the model beside them. Raises InvalidInput."""
    turns = list(_turns(messages))
    told = "\n".join(f"{each.description}: {each.value}" for each in context)
    if not told:
        return turns
    # Most chat templates take only one system message, which must be the first.
    if turns and turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{told}"}, *turns[1:]]
    return [{"role": "system", "content": told}, *turns]


def _turns(messages: Sequence[Message]) -> Iterator[Turn]:
    reasoning = ""
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        if message.role == "reasoning":
            # The next message of the assistant's has the answer to it.
            reasoning += _text(message, place)
        elif message.role == "assistant":
            yield _assistant(message, reasoning, place)
            reasoning = ""
        elif message.role == "tool":
            yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": _result(message, place)}
        elif message.role == "user":
            yield {"role": "user", "content": _content(message, place)}
        elif message.role != "activity":
            yield {"role": "system", "content": _text(message, place)}


def _assistant(message: Message, reasoning: str, place: str) -> Turn:
    turn: Turn = {"role": "assistant", "content": _text(message, place) or None}
    if reasoning:
        turn["reasoning"] = reasoning
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    return turn


def _call(call: Call) -> dict[str, Any]:
    arguments = call.function.arguments or "{}"
    if not is_object(arguments):
        # Chat templates take it apart.
        arguments = msgspec.json.encode({"INVALID_JSON": arguments}).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _result(message: Message, place: str) -> str:
    # Chat templates have no place for errors, but the model should know.
    return f"Error: {message.error}" if message.error else _text(message, place)


def _text(message: Message, place: str) -> str:
    content = message.content
    if isinstance(content, list):
        return "".join(part.text for part in content)
    if isinstance(content, dict):
        raise InvalidInput(f"{place}.content must be text", param=f"{place}.content")
    return content or ""


def _content(message: Message, place: str) -> str | list[dict[str, Any]]:
    if not isinstance(message.content, list):
        return _text(message, place)
    return [_part(part, f"{place}.content[{at}]") for at, part in enumerate(message.content)]


def _part(part: Part, place: str) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type != "image" or part.source is None:
        raise InvalidInput(f"{place}: of parts, only text and image are supported", param=place)
    source = part.source
    if source.type not in ("url", "data"):
        raise InvalidInput(f"{place}.source.type must be url or data", param=f"{place}.source.type")
    url = source.value if source.type == "url" else f"data:{source.mime_type};base64,{source.value}"
    return {"type": "image_url", "image_url": {"url": url}}
