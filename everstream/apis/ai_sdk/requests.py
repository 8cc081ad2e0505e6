"""Turns the body of POST /api/chat into the chat model's inputs, which have vLLM's names. Pure. Called by `routes`.

Applications add fields of their own to the body. Those that are inputs of the model go to it; others are ignored, and
named in the response.
"""

from typing import Any

import msgspec

from everstream.apis.ai_sdk.conversation import Turn, chat_messages
from everstream.apis.ai_sdk.request_types import ChatRequest, ClientTool, ToolChoiceTool
from everstream.contract.inputs import refuse_unknown
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.web.typed_bodies import decoded

_SETTINGS = {
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "stop_sequences": "stop",
    "seed": "seed",
}
"""The AI SDK's names, and vLLM's."""
OTHER_INPUTS = ("prompt", "prompts", "raw", "stream", "n", "echo", "suffix")
"""Inputs of the model that are for other kinds of answers."""
_FIELDS = msgspec.structs.fields(ChatRequest)


class ParsedRequest(msgspec.Struct, frozen=True):
    """`inputs` are the model's, where objects and arrays are `msgspec.Raw`. `ignored`: the names of fields that have no
    effect. `chat`: the client's id for the conversation. `is_continuation`: the answer is the next step of the last
    message, which is the assistant's."""

    inputs: dict[str, Any]
    ignored: list[str]
    chat: str
    is_continuation: bool
    is_stream: bool = True


def parse(body: dict[str, Any], schema: Schema) -> ParsedRequest:
    """Raises InvalidInput."""
    request = decoded(body, _decoder)
    own = {field.encode_name for field in _FIELDS}
    given = {name: value for name, value in body.items() if value is not None and name not in own}
    passed = {name: value for name, value in given.items() if name in schema and name not in OTHER_INPUTS}
    inputs = passed | _settings(request) | _tools(request) | _messages(request)
    refuse_unknown(inputs, schema)
    is_continuation = request.messages[-1].role == "assistant"
    return ParsedRequest(inputs, [name for name in given if name not in passed], request.id or "", is_continuation)


_decoder = msgspec.json.Decoder(ChatRequest)


def _messages(request: ChatRequest) -> dict[str, Any]:
    """If the last turn is a text of the assistant's, the answer continues it."""
    turns = chat_messages(request.messages)
    if turns and _is_only_reasoning(turns[-1]):
        turns.pop()
    if not turns:
        raise InvalidInput("messages is empty", param="messages")
    continued = {"continue_final_message": True, "add_generation_prompt": False}
    system = [{"role": "system", "content": request.system}] if request.system else []
    return {"messages": _raw(system + turns), **(continued if turns[-1]["role"] == "assistant" else {})}


def _is_only_reasoning(turn: Turn) -> bool:
    """Reasoning that was stopped can't be continued, so it begins anew."""
    return turn["role"] == "assistant" and turn["content"] is None


def _settings(request: ChatRequest) -> dict[str, Any]:
    given = {chat: getattr(request, name) for name, chat in _SETTINGS.items()}
    return {name: value for name, value in given.items() if value not in (None, [])}


def _tools(request: ChatRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    tools = request.tools
    listed = tools if isinstance(tools, list) else [_function(name, tool) for name, tool in tools.items()]
    given: dict[str, Any] = {"tools": _raw(listed)}
    choice = request.tool_choice
    if isinstance(choice, ToolChoiceTool):
        given["tool_choice"] = _raw({"type": "function", "function": {"name": choice.tool_name}})
    elif choice is not None:
        given["tool_choice"] = choice
    return given


def _function(name: str, tool: ClientTool) -> dict[str, Any]:
    schema = tool.input_schema or tool.parameters or {}
    function: dict[str, Any] = {"name": name, "parameters": {"type": "object", **schema}}
    optional = {"description": tool.description, "strict": tool.strict}
    function |= {name: value for name, value in optional.items() if value is not None}
    return {"type": "function", "function": function}


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode_json(value))
