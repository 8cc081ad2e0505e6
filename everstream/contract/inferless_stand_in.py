"""What a model gets from `import inferless` where Inferless's SDK is not installed. `inferless_module` installs it.

The SDK's decorators describe a model to Inferless and run code on its machines. Here they mark functions as the SDK
does, and return what they get. Only calls of models on Inferless need the SDK itself.
"""

import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_ClassT = TypeVar("_ClassT", bound=type)


def request(cls: _ClassT) -> _ClassT:
    """The decorator of the pydantic class that describes the inputs."""
    return cls


def response(cls: _ClassT) -> _ClassT:
    """The decorator of the pydantic class that describes the output."""
    return cls


def config(cls: _ClassT | None = None) -> Any:
    """Set each default of a pydantic class as an environment variable; with or without parentheses."""
    return _set_environment if cls is None else _set_environment(cls)


def _set_environment(cls: _ClassT) -> _ClassT:
    for name, field in getattr(cls, "model_fields", {}).items():
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        if value is not None:
            os.environ[name.upper()] = str(value)
    return cls


class Cls:
    """`app = inferless.Cls(gpu="T4")`, whose methods decorate the model's methods."""

    def __init__(self, gpu: str | None = None) -> None:
        self.gpu = gpu

    @staticmethod
    def load(function: _Decorated) -> _Decorated:
        return _marked(function, "_is_loader")

    @staticmethod
    def infer(function: _Decorated) -> _Decorated:
        return _marked(function, "_is_infer")


def method(gpu: str | None = None) -> Callable[[_Decorated], _Decorated]:  # noqa: ARG001 - the SDK's signature
    return lambda function: function


def local_entry_point(function: _Decorated) -> _Decorated:
    return _marked(function, "_is_local_entry_point")


def _marked(function: _Decorated, mark: str) -> _Decorated:
    setattr(function, mark, True)
    return function


def call(*_arguments: Any, **_options: Any) -> NoReturn:
    _need_sdk("call")


def call_async(*_arguments: Any, **_options: Any) -> NoReturn:
    _need_sdk("call_async")


def _need_sdk(name: str) -> NoReturn:
    raise RuntimeError(f"inferless.{name} calls a model on Inferless, which needs its SDK: pip install inferless")


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"Everstream's stand-in for the inferless SDK has no {name!r}; if you need it: pip install inferless"
    )
