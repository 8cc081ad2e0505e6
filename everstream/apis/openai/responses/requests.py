"""Turns the body of POST /v1/responses into a chat request. Pure. Called by `routes`.

In: the body, without Everstream's own options, and the conversation before it (`history`). Out: a `Request`, the inputs
of the chat model with vLLM's names, and the names of the fields that make no difference here.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from everstream.apis.openai.responses.items import Item
from everstream.apis.openai.responses.messages import chat_messages, continues
from everstream.apis.openai.responses.tools import Tool, ToolChoice, chat_tools
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json

INCLUDE_LOGPROBS = "message.output_text.logprobs"
INCLUDABLE = (
    INCLUDE_LOGPROBS,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
)
_UNSUPPORTED = (
    "conversation",
    "prompt",
    "moderation",
    "previous_input_messages",
    "vllm_xargs",
    "kv_transfer_params",
    "ec_transfer_params",
    "mm_processor_kwargs",
    "media_io_kwargs",
)
"""Each would change the answer."""
NO_OP: dict[str, Any] = {
    "top_k": None,
    "min_p": None,
    "seed": None,
    "stop": [],
    "stop_token_ids": [],
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "ignore_eos": False,
    "skip_special_tokens": True,
    "include_stop_str_in_output": False,
    "include_reasoning": True,
    "structured_outputs": None,
    "chat_template_kwargs": {},
    "priority": 0,
    "cache_salt": None,
}
"""vLLM's own parameters, which go to the model as they are, and the value of each that changes nothing."""
PARAMS = {
    "messages": "input",
    "prompt": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "truncate_prompt_tokens": "truncation",
}
"""What the model's inputs are called in a request."""


class Format(Struct, omit_defaults=True):
    """`text.format`. What is in `schema` stays JSON."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Raw] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.type == "json_schema" and not (self.name and self.schema is not None):
            raise ValueError("a json_schema format needs name and schema")


class Text(Struct):
    format: Format | None = None
    verbosity: str | None = None


class ReasoningOptions(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Request(Struct):
    """A body's fields that make a difference here, or that the response repeats."""

    input: str | list[Item] = []
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[Tool] = []
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool = True
    text: Text = msgspec.field(default_factory=Text)
    reasoning: ReasoningOptions = msgspec.field(default_factory=ReasoningOptions)
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Annotated[int, Meta(ge=0)] = 0
    include: list[str] = []
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: Annotated[
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
    ] = {}
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream: bool = False
    store: bool = True
    background: bool = False

    @property
    def items(self) -> list[Item]:
        if isinstance(self.input, str):
            return [Item(role="user", content=self.input)]
        return self.input

    @property
    def wants_logprobs(self) -> bool:
        return INCLUDE_LOGPROBS in self.include


class ParsedRequest(Struct, frozen=True):
    """`passed_on`: vLLM's own parameters. `ignored`: names of given fields that make no difference here."""

    request: Request
    passed_on: dict[str, Any]
    ignored: list[str]


def parse(body: dict[str, Any]) -> ParsedRequest:
    """Raises InvalidInput."""
    given = {name: value for name, value in body.items() if value is not None}
    for name in _UNSUPPORTED:
        if name in given:
            raise InvalidInput(f"{name} is not supported", param=name)
    known = {name: given.pop(name) for name in Request.__struct_fields__ if name in given}
    request = _decoded(known)
    _check(request, has_input="input" in known)
    passed_on = {name: given.pop(name) for name in NO_OP if name in given}
    passed_on = {name: value for name, value in passed_on.items() if value != NO_OP[name]}
    return ParsedRequest(request, passed_on, [*_without_effect(request), *(name[:100] for name in given)])


def chat_inputs(parsed: ParsedRequest, conversation: list[Item]) -> dict[str, Any]:
    """The chat model's inputs. `conversation` ends with the request's own items. Raises InvalidInput."""
    request = parsed.request
    messages = chat_messages(conversation, request.instructions)
    if not messages:
        raise InvalidInput("input is empty", param="input")
    inputs: dict[str, Any] = {"messages": messages, **chat_tools(request.tools, request.tool_choice)}
    if not request.parallel_tool_calls:
        inputs["parallel_tool_calls"] = False
    if continues(conversation):
        inputs |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.wants_logprobs:
        inputs |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.truncation == "auto":
        # vLLM then truncates the prompt to what the model's context has room for; by default some models lose the end.
        inputs |= {"truncate_prompt_tokens": -1, "truncation_side": "left"}
    optional = {
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "reasoning_effort": request.reasoning.effort,
        "response_format": _response_format(request.text.format),
    }
    return inputs | {name: value for name, value in optional.items() if value is not None} | parsed.passed_on


def own_param(param: str | None) -> str | None:
    """What a request calls this input of the model, or this place in it."""
    name = re.split(r"[.[]", param or "")[0]
    if name not in PARAMS:
        return param
    # The place within the messages is not that within the items.
    return PARAMS[name] + (param or "").removeprefix(name) if name == "response_format" else PARAMS[name]


def _decoded(known: dict[str, Any]) -> Request:
    try:
        return msgspec.json.decode(encode_json(known), type=Request)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).rpartition(" - at `$")
        param = place.strip("`.") or "body"
        raise InvalidInput(f"{param}: {problem}"[:400], param=param[:100]) from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"the body can't be read: {error}"[:400], param="body") from None


def _check(request: Request, *, has_input: bool) -> None:
    if not has_input and request.previous_response_id is None:
        raise InvalidInput("input is missing", param="input")
    if request.background and not request.store:
        raise InvalidInput("background needs store: nobody could get the response otherwise", param="background")
    if unknown := next((name for name in request.include if name not in INCLUDABLE), None):
        raise InvalidInput(f"include[] can't be {unknown[:100]!r}; allowed: {', '.join(INCLUDABLE)}", param="include")


def _without_effect(request: Request) -> Iterator[str]:
    reasoning = request.reasoning
    values = {
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "max_tool_calls": request.max_tool_calls,
        "text.verbosity": request.text.verbosity,
        "reasoning.summary": reasoning.summary or reasoning.generate_summary,
        "include.reasoning.encrypted_content": "reasoning.encrypted_content" in request.include,
        "top_logprobs": request.top_logprobs and not request.wants_logprobs,
    }
    return (name for name, value in values.items() if value)


def _response_format(wanted: Format | None) -> dict[str, Any] | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "json_object"}
    schema = {"name": wanted.name, "schema": wanted.schema, "description": wanted.description, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": {name: value for name, value in schema.items() if value is not None}}
