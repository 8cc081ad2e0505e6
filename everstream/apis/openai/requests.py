"""Turns OpenAI's requests into model inputs. Pure. Called by `routes`.

A field that the model has as an input is passed on. A value that changes nothing (`n: 1`, null) is dropped, whatever
the model. Other fields are ignored, and named in the response, unless ignoring them would change the answer.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from everstream.contract.inputs import check_containers, refuse_unknown
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions."""

NO_OPS: Mapping[str, tuple[Any, ...]] = {
    "audio": ({},),
    "bad_words": ([],),
    "best_of": (1,),
    "documents": ([],),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"], []),
    "n": (1,),
    "presence_penalty": (0,),
    "priority": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "return_token_ids": (False,),
    "skip_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "suffix": ("",),
    "tools": ([],),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "web_search_options": ({},),
}
"""Values that change nothing. Clients send many of them with each request."""

CHANGES_ANSWER = frozenset(NO_OPS) | {
    "allowed_token_ids",
    "chat_template",
    "continue_final_message",
    "ignore_eos",
    "include_stop_str_in_output",
    # In vLLM 0.32 it spoils the log probabilities of the other requests in the batch.
    "logprob_token_ids",
    "max_tokens",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "prompt_embeds",
    "prompt_logprobs",
    "structured_outputs",
    "temperature",
    "thinking_token_budget",
    "tool_choice",
    "top_k",
    "top_p",
    "truncate_prompt_tokens",
}
"""Fields that are refused where the model does not have them."""


Prompts = Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]


class CompletionFields(msgspec.Struct):
    """One prompt or several, as texts or as token ids."""

    prompt: str | Prompts


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ApiFields(msgspec.Struct):
    """What is not the model's: how to answer, and what has no effect here. `max_completion_tokens` is `max_tokens`."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    user: Any = None
    metadata: Any = None
    store: Any = None


_OF_API = ("model", *ApiFields.__struct_fields__)


class ParsedRequest(msgspec.Struct, frozen=True):
    """The model's inputs; how to answer; and the names of the fields that were ignored."""

    inputs: dict[str, Any]
    is_stream: bool
    include_usage: bool
    ignored: list[str]


Parse = Callable[[dict[str, Any], Schema], ParsedRequest]


def chat(body: dict[str, Any], schema: Schema) -> ParsedRequest:
    """From the body of /v1/chat/completions. Raises InvalidInput."""
    given = _without_no_ops(body)
    if "max_completion_tokens" in given:
        given["max_tokens"] = given["max_completion_tokens"]
    return _parsed(given, "messages", {}, schema)


def completion(body: dict[str, Any], schema: Schema) -> ParsedRequest:
    """From the body of /v1/completions. The prompt goes to the model unchanged. Raises InvalidInput."""
    given = _without_no_ops(body)
    if "max_tokens" in schema:
        given.setdefault("max_tokens", DEFAULT_COMPLETION_TOKENS)
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        given["prompt"] = prompt[0]
    elif isinstance(prompt, (list, msgspec.Raw)):
        given["prompts"] = _prompts(given.pop("prompt"))
        return _parsed(given, "prompts", {}, schema)
    return _parsed(given, "prompt", {"raw": True} if "raw" in schema else {}, schema)


def own_param(param: str | None) -> str | None:
    """What a completion's request calls this input of the model."""
    return "prompt" if param == "prompts" else param


def _prompts(given: list[Any] | msgspec.Raw) -> list[Any]:
    try:
        if isinstance(given, list):
            return msgspec.convert(given, Prompts)
        check_containers("prompt", given)
        return msgspec.json.decode(given, type=Prompts)
    except ValueError:
        what = "a string, or an array of strings, of token ids, or of arrays of token ids"
        raise InvalidInput(f"prompt must be {what}", param="prompt") from None


def _without_no_ops(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None and not _is_no_op(name, value)}


def _is_no_op(name: str, value: Any) -> bool:
    # In Python, False is 0, and True is 1.
    return any(value == no_op and isinstance(value, bool) == isinstance(no_op, bool) for no_op in NO_OPS.get(name, ()))


def _parsed(given: dict[str, Any], prompt: str, more: dict[str, Any], schema: Schema) -> ParsedRequest:
    _drop_idle_choices(given)
    is_stream = _flag(given, "stream", "stream")
    wanted = {name: value for name, value in given.items() if name not in _OF_API}
    ignored = [name for name in wanted if name not in schema and name not in (*CHANGES_ANSWER, prompt)]
    inputs = {name: value for name, value in wanted.items() if name not in ignored} | more
    refuse_unknown(inputs, schema)
    if prompt not in given:
        raise InvalidInput(f"{prompt} is missing", param=prompt)
    if not is_stream and "stream" in schema:
        inputs["stream"] = False
    return ParsedRequest(inputs, is_stream, _include_usage(given), ignored)


def _drop_idle_choices(given: dict[str, Any]) -> None:
    """What chooses among things that were not given changes nothing either."""
    if "tools" not in given:
        given.pop("parallel_tool_calls", None)
        if given.get("tool_choice") in ("none", "auto"):
            del given["tool_choice"]
    if "best_of" in given and given["best_of"] == given.get("n"):
        del given["best_of"]


def _include_usage(given: dict[str, Any]) -> bool:
    options = given.get("stream_options", {})
    if not isinstance(options, dict):
        raise InvalidInput("stream_options must be an object", param="stream_options")
    return _flag(options, "include_usage", "stream_options")


def _flag(given: dict[str, Any], name: str, param: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name} must be true or false", param=param)
    return bool(value)
