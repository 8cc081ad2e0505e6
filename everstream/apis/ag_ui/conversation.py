"""Turns AG-UI's messages into a chat's, in the format of vLLM and OpenAI. Pure. Called by `requests`."""

from collections.abc import Iterator, Sequence
from typing import Any

from everstream.apis.ag_ui.request_types import Call, Context, Message, Part
from everstream.contract.chat_outputs import as_object
from everstream.errors import InvalidInput

Turn = dict[str, Any]


def chat_messages(messages: Sequence[Message], context: Sequence[Context]) -> list[Turn]:
    """`context`: what the application tells the model beside them. Raises InvalidInput."""
    turns = _joined(_turns(messages))
    told = "\n".join(f"{each.description}: {each.value}" for each in context)
    if not told:
        return turns
    # Most chat templates take only one system message, which must be the first.
    if turns and turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{told}"}, *turns[1:]]
    return [{"role": "system", "content": told}, *turns]


def _joined(turns: Iterator[Turn]) -> list[Turn]:
    """Messages of the assistant's in a row are one turn: text may come after a call, but before its result."""
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"] == "assistant":
            _extend(joined[-1], turn)
        else:
            joined.append(turn)
    return joined


def _extend(before: Turn, turn: Turn) -> None:
    for name in ("content", "reasoning", "tool_calls"):
        if turn.get(name):
            before[name] = before[name] + turn[name] if before.get(name) else turn[name]


def _turns(messages: Sequence[Message]) -> Iterator[Turn]:
    answered = {message.tool_call_id for message in messages if message.role == "tool"}
    reasoning = ""
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        if message.role == "reasoning":
            reasoning += _text(message, place)
        elif message.role == "assistant":
            calls = [_call(call) for call in message.tool_calls or [] if call.id in answered]
            yield from _assistant(_text(message, place), reasoning, calls)
        elif message.role == "tool":
            yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": _result(message, place)}
        elif message.role == "user":
            yield {"role": "user", "content": _content(message, place)}
        elif message.role != "activity":
            yield {"role": "system", "content": _text(message, place)}
        if message.role not in ("reasoning", "activity"):
            # It belongs to the message of the assistant's right after it.
            reasoning = ""


def _assistant(text: str, reasoning: str, calls: list[dict[str, Any]]) -> Iterator[Turn]:
    """Nothing for an answer that was stopped before it said anything. Calls without a result are none."""
    optional = {"reasoning": reasoning, "tool_calls": calls}
    turn = {"role": "assistant", "content": text or None, **{name: value for name, value in optional.items() if value}}
    if text or reasoning or calls:
        yield turn


def _call(call: Call) -> dict[str, Any]:
    # Chat templates take the arguments apart.
    function = {"name": call.function.name, "arguments": as_object(call.function.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _result(message: Message, place: str) -> str:
    # Chat templates have no place for errors, but the model should know.
    return f"Error: {message.error}" if message.error else _text(message, place)


def _text(message: Message, place: str) -> str:
    content = message.content
    parts = content if isinstance(content, list) else []
    if isinstance(content, dict) or any(part.type != "text" for part in parts):
        raise InvalidInput(f"{place}.content must be text", param=f"{place}.content")
    return content if isinstance(content, str) else "".join(part.text for part in parts)


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
