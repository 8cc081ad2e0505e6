"""How to call a model's `infer`: models declare it in many ways. Pure. Called by `model`.

Plain or async, a generator or not; with or without a handler; behind a wrapper without a signature of its own.
"""

import enum
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from everstream.errors import ModelLoadError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
HANDLER_NAME = "stream_output_handler"


class HandlerPlace(enum.Enum):
    """Where a call of `infer` passes the handler."""

    NONE = enum.auto()
    SECOND = enum.auto()
    KEYWORD = enum.auto()


class Signature(msgspec.Struct, frozen=True):
    """`keyword`: the handler's name, if it is passed by that."""

    handler: HandlerPlace
    keyword: str
    is_async: bool
    is_generator: bool

    @property
    def sends_many(self) -> bool:
        """Whether it can give more outputs than the one that it returns."""
        return self.handler is not HandlerPlace.NONE or self.is_generator

    def arguments(self, inputs: Any, handler: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.handler is HandlerPlace.SECOND:
            return (inputs, handler), {}
        return (inputs,), {self.keyword: handler} if self.handler is HandlerPlace.KEYWORD else {}


def signature_of(infer: Callable[..., Any], is_streaming: bool | None) -> Signature:
    """`is_streaming`: the model's IS_STREAMING_OUTPUT; None if it has none. Raises ModelLoadError."""
    is_async_generator = inspect.isasyncgenfunction(infer)
    place, keyword = _place_of_handler(infer, is_streaming)
    return Signature(
        place,
        keyword,
        is_async=inspect.iscoroutinefunction(infer) or is_async_generator,
        is_generator=inspect.isgeneratorfunction(infer) or is_async_generator,
    )


def _place_of_handler(infer: Callable[..., Any], is_streaming: bool | None) -> tuple[HandlerPlace, str]:
    parameters = _parameters(infer)
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    keywords = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    takes_any_keyword = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    if not positional and not takes_any:
        raise ModelLoadError("infer must take the inputs as its first argument")
    required = [parameter.name for parameter in positional if parameter.default is parameter.empty]
    if len(required) > 2 or any(each.default is each.empty and not _is_handler(each) for each in keywords):
        raise ModelLoadError(f"infer must take (inputs) or (inputs, {HANDLER_NAME}), not {inspect.signature(infer)}")
    if named := next((parameter.name for parameter in keywords if _is_handler(parameter)), ""):
        return HandlerPlace.KEYWORD, named
    if len(required) == 2 or any(_is_handler(parameter) for parameter in positional[1:2]):
        return HandlerPlace.SECOND, ""
    # A default, or a wrapper's *args, may stand for the handler or for something else.
    if is_streaming and (len(positional) > 1 or takes_any):
        return HandlerPlace.SECOND, ""
    if is_streaming and takes_any_keyword:
        return HandlerPlace.KEYWORD, HANDLER_NAME
    return HandlerPlace.NONE, ""


def _parameters(infer: Callable[..., Any]) -> list[inspect.Parameter]:
    """Those of the wrapped function, if it is a wrapper that takes anything and calls a single function."""
    parameters = list(inspect.signature(infer).parameters.values())
    if any(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters[:1]):
        return parameters
    cells = getattr(infer, "__closure__", None) or ()
    inner = [cell.cell_contents for cell in cells if inspect.isfunction(cell.cell_contents)]
    if len(inner) != 1:
        return parameters
    # The wrapper is bound to the model, and the function that it calls is not.
    return list(inspect.signature(inner[0]).parameters.values())[int(inspect.ismethod(infer)) :]


def _is_handler(parameter: inspect.Parameter) -> bool:
    return parameter.name == HANDLER_NAME or parameter.name.endswith("handler")


def required_parameters(function: Callable[..., Any]) -> int:
    """How many arguments a call must give."""
    parameters = inspect.signature(function).parameters.values()
    return sum(each.kind in _POSITIONAL and each.default is each.empty for each in parameters)
