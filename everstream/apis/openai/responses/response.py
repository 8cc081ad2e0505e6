"""The response object: what it repeats of its request, and what becomes of it. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from everstream.apis.openai.responses.history import RESPONSE_PREFIX
from everstream.apis.openai.responses.requests import Request, own_param
from everstream.errors import FAILED_STATUS
from everstream.log.records import Generation

_VERBOSITIES = ("low", "medium", "high")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def echo(request: Request) -> dict[str, Any]:
    """The fields that a response repeats of its request, or of OpenAI's defaults. May hold `msgspec.Raw`."""
    text: dict[str, Any] = {"format": request.text.format or {"type": "text"}}
    if request.text.verbosity in _VERBOSITIES:
        text["verbosity"] = request.text.verbosity
    effort = request.reasoning.effort
    return {
        "background": request.background,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata,
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": effort if effort in _EFFORTS else None, "summary": None},
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "temperature": request.temperature,
        "text": text,
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools,
        "top_logprobs": request.top_logprobs,
        "top_p": request.top_p,
        "truncation": request.truncation,
        "user": request.user,
    }


def response_object(generation: Generation, echoed: Mapping[str, Any]) -> dict[str, Any]:
    """A response without output yet. `echoed`: from `echo`."""
    return {
        "id": RESPONSE_PREFIX + generation.id,
        "object": "response",
        "created_at": generation.created,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": generation.model,
        "output": [],
        "usage": None,
        **echoed,
    }


def usage(counted: dict[str, Any] | None) -> dict[str, Any] | None:
    """From a chat completion's usage."""
    if counted is None:
        return None
    of_input, of_output = (counted.get(f"{name}_tokens_details") or {} for name in ("prompt", "completion"))
    return {
        "input_tokens": counted["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": of_input.get("cached_tokens") or 0,
            "cache_write_tokens": of_input.get("created_cache_tokens") or 0,
        },
        "output_tokens": counted["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": of_output.get("reasoning_tokens") or 0},
        "total_tokens": counted["total_tokens"],
    }


def failure(data: bytes) -> dict[str, Any]:
    """A failed response's `error`, from a `failed` entry's data. `type` is Everstream's own code."""
    said = msgspec.json.decode(data)
    is_request = FAILED_STATUS.get(said["code"], 500) < 500
    return {
        "code": "invalid_prompt" if is_request else "server_error",
        "message": said["message"],
        "type": said["code"],
        "param": own_param(said.get("param")),
    }
