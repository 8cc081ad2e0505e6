"""A loaded model, behind one interface for all the variants that the contract allows. Called by `engine`.

The contract's class has `initialize`, `infer(inputs, stream_output_handler)` and `finalize`; each may be async or
plain, and may omit its arguments. An async `infer` runs for many generations at once. A plain one runs in a thread,
one at a time, because models written for the contract share state between calls. Optional members:

    check(inputs)       raises InvalidInput for inputs that `infer` can't take
    max_model_len       the context length, in tokens
    prompt_bound        a `PromptBound`
    running_requests    the model's own count of running requests
    has_died            whether the model can no longer serve
"""

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from everstream.contract.loader import CLASS_NAME, load_errors, load_model_class
from everstream.contract.output_handler import StreamOutputHandler
from everstream.contract.prompt_bound import PromptBound


class Model(Protocol):
    """What the engine asks of a model."""

    @property
    def runs_concurrently(self) -> bool: ...

    @property
    def max_model_len(self) -> int | None: ...

    @property
    def prompt_bound(self) -> PromptBound | None: ...

    @property
    def running_requests(self) -> int | None: ...

    @property
    def has_died(self) -> bool: ...

    async def infer(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
        """Run one generation to its end. Raises what the model raises."""

    async def check(self, inputs: dict[str, Any]) -> None:
        """Have the model check inputs before anything starts, if it can. Raises what the model raises."""


def load_model(app_dir: Path) -> "LoadedModel":
    """Import `app.py` and instantiate its class. Raises ModelLoadError."""
    model_class = load_model_class(app_dir)
    with load_errors(app_dir, f"{CLASS_NAME}()"):
        return LoadedModel(model_class(), app_dir)


class LoadedModel:
    """Adapts an instance of the contract's class to `Model`."""

    def __init__(self, model: Any, app_dir: Path) -> None:
        self._model = model
        self._app_dir = app_dir
        # One thread: a plain `infer` whose generation was stopped must return before the next one starts.
        self._plain_infers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="infer")

    @property
    def runs_concurrently(self) -> bool:
        return inspect.iscoroutinefunction(self._model.infer)

    @property
    def max_model_len(self) -> int | None:
        length = getattr(self._model, "max_model_len", None)
        return length if isinstance(length, int) else None

    @property
    def prompt_bound(self) -> PromptBound | None:
        bound = getattr(self._model, "prompt_bound", None)
        return bound if isinstance(bound, PromptBound) else None

    @property
    def running_requests(self) -> int | None:
        count = getattr(self._model, "running_requests", None)
        return count if isinstance(count, int) else None

    @property
    def has_died(self) -> bool:
        return bool(getattr(self._model, "has_died", False))

    async def initialize(self) -> None:
        """Raises ModelLoadError."""
        with load_errors(self._app_dir, "initialize"):
            await _call_optional(self._model, "initialize")

    async def finalize(self) -> None:
        await _call_optional(self._model, "finalize")

    async def infer(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
        """Sends the dict that a non-streaming model returns, and finalises the output if the model did not."""
        infer = self._model.infer
        streams = len(_required_parameters(infer)) > 1
        arguments = (inputs, handler) if streams else (inputs,)
        if self.runs_concurrently:
            output = await infer(*arguments)
        else:
            output = await asyncio.get_running_loop().run_in_executor(self._plain_infers, infer, *arguments)
        if output is not None and not streams:
            handler.send_streamed_output(output)
        handler.finalise_streamed_output()

    async def check(self, inputs: dict[str, Any]) -> None:
        """A plain `check` runs in a thread."""
        check = getattr(self._model, "check", None)
        if inspect.iscoroutinefunction(check):
            await check(inputs)
        elif check is not None:
            await asyncio.to_thread(check, inputs)


async def _call_optional(model: Any, name: str) -> None:
    """Call a method that a model may lack, with an empty dict for each argument that it requires."""
    method = getattr(model, name, None)
    if method is None:
        return
    result = method(*({} for _ in _required_parameters(method)))
    if inspect.isawaitable(result):
        await result


def _required_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind in positional and p.default is p.empty]
