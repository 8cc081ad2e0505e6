"""The model contract (Inferless): a folder with `app.py` and `input_schema.py`.

`app.py` has the class `InferlessPythonModel`: `initialize`, `infer(inputs, stream_output_handler)`, `finalize`.
An async `infer` runs for many generations at once, a plain one in a thread, one at a time: models written for the
contract share state between calls. Optional: `check(inputs)` raises InvalidInput for what `infer` could not take,
`max_model_len` is the context length in tokens, `running_requests` what the model itself counts as under way,
`has_died` says that the model can serve no more.

Called by `engine`; `load_schema` by `routes` and `launcher`, so nothing here imports what is heavy.
"""

import asyncio
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from everstream import log
from everstream.errors import ModelLoadError
from everstream.pacing import Pace, Paced

_plain_infers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="infer")
"""One thread: a plain `infer` whose generation was stopped must have returned before the next one starts."""

CLASS_NAME = "InferlessPythonModel"


class GenerationStopped(Exception):
    """Raised into a model that still sends although its generation was stopped."""


class Sink(Protocol):
    """Where a handler's outputs go: `appender.Writer`."""

    has_room: asyncio.Event

    def put(self, entry: bytes, resume: bytes = b"") -> None: ...

    def end(self, state: str, data: object) -> None: ...


class StreamOutputHandler:
    """What a model streams through. Its methods may be called from any thread.

    With a `pace`, outputs that come between two of its beats are one entry, where they can be joined: the output is
    `{"text": str}` and its `resume` a list.
    """

    def __init__(
        self,
        sink: Sink,
        delivered: list[dict[str, Any]],
        resume_states: list[Any],
        max_output_bytes: int,
        pace: Pace | None = None,
    ) -> None:
        self.resume_states = resume_states
        """Beside each of `delivered`: what the model gave as `resume`, or None; lists are joined where outputs were."""
        self.finalised = False
        self._delivered = delivered
        self._to_skip = len(delivered)
        self._sink = sink
        self._max_output_bytes = max_output_bytes
        self._stopped = False
        self._paced = Paced(pace, sink.put, max_output_bytes) if pace else None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The outputs that are in the log already, after an engine's death.

        A model that reads this goes on after them. One that never does starts over, so as many of its outputs as were
        delivered are not sent again; their texts join if the model says the same twice.
        """
        self._to_skip = 0
        return self._delivered

    def send_streamed_output(self, output: dict[str, Any], resume: Any = None) -> None:
        """One output for the readers; `resume` (JSON) is for the model alone, should it have to go on from here.

        A list as `resume` says that the output may be joined with its neighbours, and the lists with it.
        Called from a thread it waits while the log is slow to take what was sent; in an async `infer` `drain` does.
        """
        if not isinstance(output, dict):
            raise TypeError(f"send_streamed_output takes a dict, got {type(output).__name__}")
        if self.finalised:
            raise RuntimeError("send_streamed_output was called after finalise_streamed_output")
        if self._to_skip:
            self._to_skip -= 1
            return
        # Here, so that the model hears of what is no JSON, or too large.
        entry = log.encode_entry(log.TOKEN, output)
        if len(entry) > self._max_output_bytes:
            raise ValueError(f"an output has {len(entry)} bytes of JSON; at most {self._max_output_bytes} are allowed")
        state = b"" if resume is None else log.encode_json(resume)
        if self._paced:
            may_join = (
                isinstance(resume, list) and resume and output.keys() == {"text"} and isinstance(output["text"], str)
            )
            self._call(self._paced.put, entry, state, bool(may_join))
        else:
            self._call(self._sink.put, entry, state)

    @property
    def has_room(self) -> bool:
        """False while much of what was sent is still on its way into the log."""
        return self._sink.has_room.is_set()

    async def drain(self) -> None:
        """Wait while much of what was sent is still on its way into the log, as asyncio's StreamWriter does."""
        await self._sink.has_room.wait()

    def finalise_streamed_output(self, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> None:
        """The end. A model that returns without it is finalised all the same; a second call does nothing."""
        if self.finalised:
            return
        self.finalised = True
        self._call(self._finish, "done", {"finish_reason": finish_reason, "usage": usage})

    def _finish(self, state: str, data: object) -> None:
        self.flush()
        self._sink.end(state, data)

    def flush(self) -> None:
        """Send what is held, without waiting for the next beat. From the event loop's thread."""
        if self._paced:
            self._paced.flush()

    def stop(self) -> None:
        """Take nothing more: who still sends is told so."""
        self._stopped = True
        if self._paced:
            self._paced.drop()

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._stopped:
            raise GenerationStopped
        if threading.get_ident() == self._thread:
            function(*arguments)
        else:
            asyncio.run_coroutine_threadsafe(self._call_and_drain(function, *arguments), self._loop).result()

    async def _call_and_drain(self, function: Callable[..., None], *arguments: Any) -> None:
        function(*arguments)
        await self.drain()


def load_model(app_dir: Path) -> Any:
    """Import `app.py` and make its class. Raises ModelLoadError."""
    module = _import(app_dir, "app")
    model_class = getattr(module, CLASS_NAME, None)
    if model_class is None:
        raise ModelLoadError(f"{app_dir / 'app.py'} has no class {CLASS_NAME}")
    with _explained(app_dir, f"{CLASS_NAME}()"):
        return model_class()


async def initialize(model: Any, app_dir: Path) -> None:
    """Call the model's `initialize`, with or without a context. Raises ModelLoadError."""
    with _explained(app_dir, "initialize"):
        if hasattr(model, "initialize"):
            await _call_lenient(model.initialize)


async def finalize(model: Any) -> None:
    """Call the model's `finalize`, with or without arguments."""
    if hasattr(model, "finalize"):
        await _call_lenient(model.finalize)


async def infer(model: Any, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
    """Run the model for one generation. A model that streams nothing and returns a dict has that sent."""
    streams = len(_required_parameters(model.infer)) > 1
    arguments = (inputs, handler) if streams else (inputs,)
    try:
        if runs_concurrently(model):
            output = await model.infer(*arguments)
        else:
            output = await asyncio.get_running_loop().run_in_executor(_plain_infers, model.infer, *arguments)
    except Exception:
        handler.flush()
        raise
    if output is not None and not streams:
        handler.send_streamed_output(output)
    handler.finalise_streamed_output()


async def check(model: Any, inputs: dict[str, Any]) -> None:
    """Have the model look at inputs before anything starts, if it can; a plain `check` in a thread. Raises what it
    does."""
    look = getattr(model, "check", None)
    if inspect.iscoroutinefunction(look):
        await look(inputs)
    elif look is not None:
        await asyncio.to_thread(look, inputs)


def runs_concurrently(model: Any) -> bool:
    return inspect.iscoroutinefunction(model.infer)


def load_schema(app_dir: Path) -> ModuleType:
    """Import `input_schema.py`. Raises ModelLoadError."""
    module = _import(app_dir, "input_schema")
    if not isinstance(getattr(module, "INPUT_SCHEMA", None), dict):
        raise ModelLoadError(f"{app_dir / 'input_schema.py'} has no dict INPUT_SCHEMA")
    return module


async def _call_lenient(function: Callable[..., Any]) -> None:
    result = function(*({} for _ in _required_parameters(function)))
    if inspect.isawaitable(result):
        await result


def _required_parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind in positional and p.default is p.empty]


def _import(app_dir: Path, name: str) -> ModuleType:
    path = app_dir / f"{name}.py"
    if not path.is_file():
        raise ModelLoadError(f"{path} does not exist")
    # Models import their neighbours by bare name, as they do where the contract comes from.
    if str(app_dir) not in sys.path:
        sys.path.insert(0, str(app_dir))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _explained(app_dir, f"import {name}"):
        spec.loader.exec_module(module)
    return module


class _explained:
    """Turn whatever a model's code raises into one line with the file and line of the model that raised it."""

    def __init__(self, app_dir: Path, step: str) -> None:
        self._app_dir = app_dir
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None or isinstance(error, (ModelLoadError, KeyboardInterrupt)):
            return
        # SystemExit included: a model that calls sys.exit() while it loads has not loaded.
        raise ModelLoadError(f"{self._place(error)}: {self._step} raised {_one_line(error)}") from error

    def _place(self, error: BaseException) -> str:
        if isinstance(error, SyntaxError) and error.filename:
            return f"{error.filename}:{error.lineno}"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if self._is_the_models(Path(frame.filename))]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else str(self._app_dir / "app.py")

    def _is_the_models(self, path: Path) -> bool:
        # The repository's root is a model folder too, and holds this package and the virtual environment.
        elsewhere = "site-packages" in path.parts or path.is_relative_to(Path(__file__).parent)
        return path.is_relative_to(self._app_dir) and not elsewhere


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
