"""Turns OpenAI's requests into model inputs. Pure. Called by `routes`."""

from typing import Any

import msgspec

from everstream.errors import InvalidInput
from everstream.log.entries import encode_json

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default for /v1/completions."""

_FORWARDED = ("temperature", "top_p", "top_k", "seed", "stop", "max_tokens", "ignore_eos")
_FIXED: dict[str, Any] = {"n": 1, "best_of": 1, "echo": False, "logprobs": False, "stream": True}
"""Accepted because some clients always send these, but only with this one value each."""
_IGNORED = ("user", "metadata", "store")


class ParsedRequest(msgspec.Struct, frozen=True):
    """The model's inputs, and whether the stream ends with usage."""

    inputs: dict[str, Any]
    include_usage: bool


def chat(body: dict[str, Any]) -> ParsedRequest:
    """From the body of /v1/chat/completions. Raises InvalidInput."""
    body = _checked(body, "messages", ("max_completion_tokens",))
    if body.get("max_completion_tokens") is not None:
        body["max_tokens"] = body["max_completion_tokens"]
    return ParsedRequest({"messages": body["messages"], **_forwarded(body)}, _include_usage(body))


def completion(body: dict[str, Any]) -> ParsedRequest:
    """From the body of /v1/completions. The prompt goes to the model unchanged. Raises InvalidInput."""
    body = _checked(body, "prompt", ())
    if body.get("max_tokens") is None:
        body["max_tokens"] = DEFAULT_COMPLETION_TOKENS
    return ParsedRequest({"prompt": body["prompt"], "raw": True, **_forwarded(body)}, _include_usage(body))


def _checked(body: dict[str, Any], required: str, more: tuple[str, ...]) -> dict[str, Any]:
    allowed = ("model", required, *more, "stream_options", *_FORWARDED, *_FIXED, *_IGNORED)
    for name, value in body.items():
        if name not in allowed and value is not None:
            raise InvalidInput(f"{name[:100]} is not supported; allowed are {', '.join(allowed)}", param=name[:100])
        if name in _FIXED and value is not None and value != _FIXED[name]:
            raise InvalidInput(f"{name} can only be {_json_text(_FIXED[name])} here", param=name)
    if body.get("stream") is not True:
        raise InvalidInput("stream must be true: non-streaming responses are not supported yet", param="stream")
    if body.get(required) is None:
        raise InvalidInput(f"{required} is missing", param=required)
    return dict(body)


def _forwarded(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _FORWARDED if body.get(name) is not None}


def _include_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise InvalidInput(
            "stream_options must be an object whose include_usage is true or false", param="stream_options"
        )
    return bool(options.get("include_usage", False))


def _json_text(value: Any) -> str:
    return encode_json(value).decode()
