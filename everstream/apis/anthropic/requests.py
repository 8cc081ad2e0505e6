"""Turns Anthropic's requests into the chat model's inputs, which have vLLM's names. Pure. Called by `routes`."""

from typing import Any, TypeVar

import msgspec

from everstream.apis.anthropic import request_types as types
from everstream.apis.anthropic.conversation import ChatMessage, chat_messages
from everstream.contract.inputs import refuse_unknown
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.web.typed_bodies import decoded

ALLOWED_TYPES = {
    "messages": "text, image and tool_result from the user; text, tool_use, thinking and redacted_thinking from the "
    "assistant; images from base64 or a url",
    "system": "text",
    "tool_choice": "auto, any, tool, none",
    "thinking": "enabled, adaptive, disabled",
    "output_config": "json_schema",
    "output_format": "json_schema",
}
"""By the first part of the place where an unknown type is."""

_REFUSED = {"mcp_servers": InvalidInput.code, "thread": "thread_unsupported_request"}
"""These have the server do more than run a model, so an answer without them would be another one. By the code, the
client's `tool_runner` knows that it has to send whole conversations instead of threads."""
_SAMPLING = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
    "cache_salt": "cache_salt",
}


T = TypeVar("T")

ADVISORY = ("cache_salt", "chat_template_kwargs", "reasoning_effort", "thinking_token_budget")
"""A model without these inputs answers without them."""


class ParsedRequest(msgspec.Struct, frozen=True):
    """The model's inputs, where objects and arrays are `msgspec.Raw`; and the names of fields that have no effect."""

    inputs: dict[str, Any]
    ignored: list[str]
    is_stream: bool = False


def messages(body: dict[str, Any], schema: Schema) -> ParsedRequest:
    """From the body of /v1/messages. Raises InvalidInput."""
    request = _decoded(body, _messages_decoder)
    sampling = {chat: value for name, chat in _SAMPLING.items() if (value := getattr(request, name)) not in (None, [])}
    inputs = _accepted({**_prompt(request), **sampling}, schema)
    if not request.stream and "stream" in schema:
        inputs["stream"] = False
    return ParsedRequest(inputs, _ignored(body, request), bool(request.stream))


def prompt(body: dict[str, Any], schema: Schema) -> ParsedRequest:
    """From the body of /v1/messages/count_tokens. Raises InvalidInput."""
    request = _decoded(body, _prompt_decoder)
    return ParsedRequest(_accepted(_prompt(request), schema), _ignored(body, request))


_messages_decoder = msgspec.json.Decoder(types.MessagesRequest)
_prompt_decoder = msgspec.json.Decoder(types.Prompt)


def _decoded(body: dict[str, Any], decoder: msgspec.json.Decoder[T]) -> T:
    if refused := next((name for name in _REFUSED if body.get(name)), None):
        raise InvalidInput(f"{refused} is not supported", param=refused, code=_REFUSED[refused])
    return decoded(body, decoder, _allowed)


def _allowed(place: str) -> str:
    first = place.partition(".")[0].partition("[")[0]
    return f"; allowed: {ALLOWED_TYPES[first]}" if place.endswith(".type") and first in ALLOWED_TYPES else ""


def _ignored(body: dict[str, Any], request: types.Prompt) -> list[str]:
    known = (*request.__struct_fields__, *_REFUSED)
    names = [name for name, value in body.items() if value is not None and name not in known]
    has_display = isinstance(body.get("thinking"), dict) and body["thinking"].get("display") is not None
    return [*names, "thinking.display"] if has_display else names


def _accepted(inputs: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Those that the model has. Raises InvalidInput for others that matter."""
    refuse_unknown((name for name in inputs if name not in ADVISORY), schema)
    return {name: value for name, value in inputs.items() if name in schema}


def _prompt(request: types.Prompt) -> dict[str, Any]:
    return {
        **_messages(request),
        **_tools(request.tools or [], request.tool_choice),
        **_reasoning(request),
        **_response_format(request),
    }


def _messages(request: types.Prompt) -> dict[str, Any]:
    """If the last message is the assistant's, the answer continues it."""
    turns = chat_messages(request.system, request.messages)
    if turns and turns[-1] == ChatMessage("assistant", ""):
        turns.pop()
    if not (turns and request.messages):
        raise InvalidInput("messages is empty", param="messages")
    last = turns[-1]
    if last.role != "assistant":
        return {"messages": _raw(turns)}
    if last.tool_calls or last.content is None:
        raise InvalidInput("the last message must be the user's, or a text of the assistant's", param="messages")
    return {"messages": _raw(turns), "continue_final_message": True, "add_generation_prompt": False}


def _tools(tools: list[types.Tool], choice: Any) -> dict[str, Any]:
    kind = types.ToolChoiceAuto if choice is None else type(choice)
    if not tools:
        if kind in (types.ToolChoiceAny, types.ToolChoiceTool):
            raise InvalidInput("tool_choice needs tools to choose from", param="tool_choice")
        return {}
    given: dict[str, Any] = {"tools": _raw([_function(tool, f"tools[{at}]") for at, tool in enumerate(tools)])}
    if choice is not None and choice.disable_parallel_tool_use:
        given["parallel_tool_calls"] = False
    if kind is types.ToolChoiceAny:
        given["tool_choice"] = "required"
    elif kind is types.ToolChoiceNone:
        given["tool_choice"] = "none"
    elif kind is types.ToolChoiceTool:
        if choice.name not in [tool.name for tool in tools]:
            raise InvalidInput(f"tool_choice names {choice.name[:100]!r}, which is not in tools", param="tool_choice")
        given["tool_choice"] = _raw({"type": "function", "function": {"name": choice.name}})
    return given


def _function(tool: types.Tool, place: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        what = f"{place} has the type {tool.type[:100]!r}, which only Anthropic's own service has"
        raise InvalidInput(f"{what}; give tools with a name and an input_schema", param=f"{place}.type")
    if not tool.name:
        raise InvalidInput(f"{place}.name is missing", param=f"{place}.name")
    function: dict[str, Any] = {"name": tool.name, "parameters": _schema(tool.input_schema, f"{place}.input_schema")}
    optional = {"description": tool.description, "strict": tool.strict}
    function |= {name: value for name, value in optional.items() if value is not None}
    return {"type": "function", "function": function}


def _schema(given: msgspec.Raw, place: str) -> dict[str, Any]:
    try:
        schema = msgspec.json.decode(given, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        raise InvalidInput(f"{place} must be a JSON schema, which is an object", param=place) from None
    return {"type": "object", **schema}


def _reasoning(request: types.Prompt) -> dict[str, Any]:
    given: dict[str, Any] = {}
    template = dict(request.chat_template_kwargs or {})
    if request.output_config is not None and request.output_config.effort is not None:
        given["reasoning_effort"] = request.output_config.effort
    match request.thinking:
        case types.ThinkingEnabled(budget_tokens=budget):
            given["thinking_token_budget"] = budget
            template.setdefault("enable_thinking", True)
        case types.ThinkingAdaptive():
            # Some chat templates think only if asked to.
            template.setdefault("enable_thinking", True)
        case types.ThinkingDisabled() | types.ThinkingBetweenTools():
            given["reasoning_effort"] = "none"
    if template:
        given["chat_template_kwargs"] = _raw(template)
    return given


def _response_format(request: types.Prompt) -> dict[str, Any]:
    config = request.output_config
    wanted = config.format if config is not None and config.format is not None else request.output_format
    if wanted is None:
        return {}
    json_schema = {"name": "answer", "schema": wanted.schema}
    return {"response_format": _raw({"type": "json_schema", "json_schema": json_schema})}


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode_json(value))
