"""vLLM's refusals of a request, as our errors, which name the field. Called by `front_end` and `front_end_answer`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from vllm.exceptions import VLLMClientError, VLLMValidationError

from everstream.errors import EverstreamError, InvalidInput, ModelError

TOO_LONG = ("input_tokens", "input_text")
"""What vLLM calls the parameter if the prompt is too long."""
MAX_CHARS = 500
REFUSALS = (VLLMClientError, ValueError, TypeError)
"""What vLLM raises if a request is wrong, pydantic's errors included. Its own server takes them for that, too."""


@contextmanager
def refusals_named(prompt: str, raised: tuple[type[Exception], ...] = REFUSALS) -> Iterator[None]:
    """Raise InvalidInput for what vLLM refuses. `prompt` is the name of the input that holds the prompt."""
    try:
        yield
    except raised as error:
        raise as_invalid_input(error, prompt) from None


def as_invalid_input(error: Exception, prompt: str) -> InvalidInput:
    """`prompt` is the name of the input that holds the prompt."""
    if isinstance(error, ValidationError):
        return _of_pydantic(error, prompt)
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


def _of_pydantic(error: ValidationError, prompt: str) -> InvalidInput:
    """The first of its errors; with a union of types, that is one for the first type."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # vLLM checks a message's parts later, so that their places begin in the middle.
    is_part = not isinstance(first["loc"][0], str)
    param = prompt if is_part else _path(first["loc"])
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
