"""vLLM's refusals of a request, as our errors, which name the field. Called by `front_end` and `front_end_answer`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from vllm.exceptions import VLLMValidationError

from everstream.errors import EverstreamError, InvalidInput, ModelError

TOO_LONG = ("input_tokens", "input_text")
"""What vLLM calls the parameter if the prompt is too long."""
MAX_CHARS = 500


def as_invalid_input(error: Exception, prompt: str) -> InvalidInput:
    """`prompt` is the name of the input that holds the prompt."""
    if isinstance(error, ValidationError):
        return _of_pydantic(error)
    if isinstance(error, VLLMValidationError):
        return _invalid(str(error.args[0]), error.parameter, prompt)
    return _invalid(str(error), None, prompt)


def as_error(error: Mapping[str, Any], prompt: str) -> EverstreamError:
    """From the `error` that vLLM's routes return instead of an answer: message, param, and an HTTP status as code."""
    if error["code"] < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _invalid(error["message"], error["param"], prompt)
    return ModelError(f"vLLM failed: {error['message']}"[:MAX_CHARS])


def _invalid(message: str, param: str | None, prompt: str) -> InvalidInput:
    # vLLM appends what it knows to the message.
    message = message.partition(" (parameter=")[0][:MAX_CHARS]
    if param in TOO_LONG:
        return InvalidInput(message, param=prompt, code="context_length_exceeded")
    return InvalidInput(message, param=param)


def _of_pydantic(error: ValidationError) -> InvalidInput:
    """The first of its errors; with a union of types, that is one for the first type."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    param = _path(first["loc"])
    return InvalidInput(f"{param}: {first['msg']}"[:MAX_CHARS], param=param)


def _path(places: tuple[Any, ...]) -> str:
    """`messages[0].content`, without the names of types that pydantic puts between."""
    path = ""
    for place in places:
        if isinstance(place, int):
            path += f"[{place}]"
        elif place.isidentifier() and place.islower() and place not in ("str", "int", "float", "bool"):
            path += f".{place}" if path else place
    return path
