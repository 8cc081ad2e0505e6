"""A loaded model, behind one interface for all the variants that the contract allows. Called by `engine`.

The contract's class has `initialize`, `infer(inputs, stream_output_handler)` and `finalize`; each may be async or
plain, and may omit its arguments. A model that says CONCURRENT = True runs many generations at once, in the engine's
event loop. All others run one at a time, in a `SerialExecutor`, because models written for the contract share state
between calls. Optional members:

    check(inputs)       raises InvalidInput for inputs that `infer` can't take
    tokenize(inputs)    the prompt's token ids
    detokenize(inputs)  the text of inputs["tokens"]
    max_model_len       the context length, in tokens
    prompt_bound        a `PromptBound`
    running_requests    the model's own count of running requests
    cache_use           a `CacheUse`
    has_died            whether the model can no longer serve
    death               how it died, in words
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from everstream.contract.loader import APP, CLASS_NAME, Declaration, Folder, is_models_file, load_errors, load_folder
from everstream.contract.output_handler import StreamOutputHandler
from everstream.contract.prompt_bound import PromptBound
from everstream.contract.serial_executor import OWN_THREADS, Complete, SerialExecutor
from everstream.contract.shared_queues import SharedQueues
from everstream.contract.signature import HandlerPlace, required_parameters, signature_of
from everstream.errors import InvalidInput, ModelLoadError, ModelRaised, NotSupported

logger = logging.getLogger(__name__)


ASKED = ("check", "tokenize", "detokenize")
"""Methods that web processes may call. They take inputs, and return JSON."""
FINALIZE_S = 5.0
"""Less than the supervisor's patience."""


class CacheUse(NamedTuple):
    """A model's key/value cache. `usage`: the fraction in use. `queries`, `hits`: tokens of prompts that were looked up
    in it, and found, since the model was loaded."""

    usage: float
    queries: int
    hits: int


class Model(Protocol):
    """What the engine asks of a model."""

    @property
    def declaration(self) -> Declaration: ...

    @property
    def max_model_len(self) -> int | None: ...

    @property
    def prompt_bound(self) -> PromptBound | None: ...

    @property
    def running_requests(self) -> int | None: ...

    @property
    def cache_use(self) -> CacheUse | None: ...

    @property
    def has_died(self) -> bool: ...

    @property
    def death(self) -> str: ...

    async def infer(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
        """Run one generation to its end. Raises what the model raises."""

    async def wait_until_idle(self, timeout_s: float) -> str:
        """Wait until nothing of the last generation runs. Returns what still runs after the timeout, in words."""

    async def ask(self, method: str, inputs: dict[str, Any]) -> Any:
        """Call one of `ASKED`, before anything starts. A model needs no `check`. Raises what the model raises, and
        InvalidInput if it has no such method."""


def load_model(app_dir: Path) -> "LoadedModel":
    """Import the folder's files and instantiate its class. Raises ModelLoadError."""
    folder = load_folder(app_dir)
    with load_errors(app_dir, f"{CLASS_NAME}()"):
        return LoadedModel(folder.model_class(), folder)


class LoadedModel:
    """Adapts an instance of the contract's class to `Model`."""

    def __init__(self, model: Any, folder: Folder) -> None:
        """Raises ModelLoadError if `infer` can't be called."""
        app_dir, declaration = folder.path, folder.declaration
        self.folder = folder
        self._model = model
        if not callable(getattr(model, "infer", None)):
            raise ModelLoadError(f"{app_dir / APP}: {CLASS_NAME} has no method infer")
        try:
            self._signature = signature_of(model.infer, declaration.is_streaming)
        except ModelLoadError as error:
            raise ModelLoadError(f"{app_dir / APP}: {error}") from None
        if declaration.is_concurrent and not self._signature.is_async:
            raise ModelLoadError(f"{app_dir / APP}: CONCURRENT = True needs an async infer")
        is_own = partial(is_models_file, app_dir=app_dir)
        queues = SharedQueues(model, is_own)
        self._serial = None if declaration.is_concurrent else SerialExecutor(queues, is_own)
        self._checks = ThreadPoolExecutor(thread_name_prefix=f"{OWN_THREADS}-check")

    @property
    def declaration(self) -> Declaration:
        return self.folder.declaration

    @property
    def is_streaming(self) -> bool:
        if self.declaration.is_streaming is None:
            return self._signature.sends_many
        return self.declaration.is_streaming

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
    def cache_use(self) -> CacheUse | None:
        use = getattr(self._model, "cache_use", None)
        return use if isinstance(use, CacheUse) else None

    @property
    def has_died(self) -> bool:
        return bool(getattr(self._model, "has_died", False))

    @property
    def death(self) -> str:
        return str(getattr(self._model, "death", ""))

    async def initialize(self) -> None:
        """Raises ModelLoadError."""
        with load_errors(self.folder.path, "initialize"):
            try:
                await self._call_optional("initialize")
            except ModelRaised as error:
                raise error.__cause__ or error from None

    async def finalize(self) -> None:
        """Waits no longer than FINALIZE_S: the model may still be busy with a call."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._call_optional("finalize"), FINALIZE_S)

    async def infer(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
        """Sends what a model returns or yields, and finalises the output if the model did not."""
        if handler.has_delivered and not self._resume(handler):
            return
        if self._serial is None:
            await self._infer_here(inputs, handler)
        else:
            answer = partial(self._infer_serially, inputs, handler)
            await self._serial.run(answer, partial(self._is_over, handler), handler.fail_soon)
        handler.finalise_streamed_output()

    async def wait_until_idle(self, timeout_s: float) -> str:
        return "" if self._serial is None else await self._serial.wait_until_idle(timeout_s)

    async def ask(self, method: str, inputs: dict[str, Any]) -> Any:
        """A plain method runs in a thread."""
        asked = getattr(self._model, method, None) if method in ASKED else None
        if inspect.iscoroutinefunction(asked):
            return await asked(inputs)
        if asked is not None:
            return await asyncio.get_running_loop().run_in_executor(self._checks, asked, inputs)
        if method != "check":
            raise NotSupported(f"the served model can't {method}")
        return None

    def _resume(self, handler: StreamOutputHandler) -> bool:
        """Returns whether there is anything left to do, after an engine's death."""
        if not self.is_streaming and not self._signature.sends_many:
            # The one output is in the log; only the end is missing.
            handler.delivered  # noqa: B018 - reading it says that nothing is to be repeated
            handler.finalise_streamed_output()
        elif not self.declaration.is_resumable:
            handler.fail("not_resumable", "the engine died, and the model declares RESUMABLE = False")
        return not handler.finalised

    def _is_over(self, handler: StreamOutputHandler) -> bool:
        """Whether no more outputs can come, although threads that `infer` started may still run."""
        return handler.finalised or handler.stopped or self._signature.handler is HandlerPlace.NONE

    async def _infer_here(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> None:
        try:
            await self._take_async(self._call_infer(inputs, handler), handler)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ModelRaised from error
        except asyncio.CancelledError as error:
            if not handler.stopped:
                raise ModelRaised from error
            raise

    def _infer_serially(self, inputs: dict[str, Any], handler: StreamOutputHandler, complete: Complete) -> None:
        returned = self._call_infer(inputs, handler)
        if hasattr(returned, "__await__") or hasattr(returned, "__aiter__"):
            complete(self._take_async(returned, handler))
        else:
            self._take(returned, handler)

    def _call_infer(self, inputs: dict[str, Any], handler: StreamOutputHandler) -> Any:
        request = self._as_request(inputs)
        given = [request] if self.declaration.is_batched else request
        arguments, keywords = self._signature.arguments(given, handler)
        return self._model.infer(*arguments, **keywords)

    async def _take_async(self, returned: Any, handler: StreamOutputHandler) -> None:
        """A coroutine, an async generator, or what a coroutine returned."""
        if hasattr(returned, "__await__"):
            returned = await returned
        if not hasattr(returned, "__aiter__"):
            self._take(returned, handler)
            return
        try:
            async for output in returned:
                if self._may_leave(handler):
                    return
                await handler.send_streamed_output(output)
        finally:
            if inspect.isasyncgen(returned):
                await returned.aclose()

    def _take(self, returned: Any, handler: StreamOutputHandler) -> None:
        """A generator, or the one output of a model that sent none."""
        if not hasattr(returned, "__next__"):
            self._take_output(returned, handler)
            return
        try:
            for output in returned:
                if self._may_leave(handler):
                    return
                handler.send_streamed_output(output)
        finally:
            if inspect.isgenerator(returned):
                returned.close()

    def _as_request(self, inputs: dict[str, Any]) -> Any:
        """The object that `infer` expects. Raises InvalidInput."""
        if self.folder.request_class is None:
            return inputs
        # pydantic requires an Optional field without a default to be given.
        fields = getattr(self.folder.request_class, "model_fields", {})
        unset = {field.alias or name: None for name, field in fields.items() if field.is_required()}
        try:
            return self.folder.request_class(**(unset | inputs))
        except ValueError as error:
            # pydantic's ValidationError.
            details = getattr(error, "errors", list)() or [{"loc": (), "msg": str(error)}]
            param = ".".join(map(str, details[0]["loc"]))
            message = str(details[0]["msg"])
            raise InvalidInput(f"{param}: {message}" if param else message, param=param or None) from None

    def _may_leave(self, handler: StreamOutputHandler) -> bool:
        """Whether a generator may be closed early: not while threads fill something that it must empty."""
        return handler.stopped and not (self._serial and self._serial.has_threads())

    def _take_output(self, returned: Any, handler: StreamOutputHandler) -> None:
        if self.declaration.is_batched and isinstance(returned, list) and len(returned) == 1:
            returned = returned[0]
        if returned is None:
            return
        if handler.has_sent or handler.finalised:
            logger.warning("infer returned %s besides what it sent; it is not sent", type(returned).__name__)
        else:
            handler.send_streamed_output(returned)

    async def _call_optional(self, name: str) -> None:
        """Call a method that a model may lack, with an empty dict for each argument that it requires."""
        method: Callable[..., Any] | None = getattr(self._model, name, None)
        if method is None:
            return
        call = partial(method, *({} for _ in range(required_parameters(method))))
        if self._serial is not None:
            await self._serial.call(call)
            return
        result = call()
        if inspect.isawaitable(result):
            await result


def in_words(error: BaseException) -> str:
    """What the model raised."""
    cause = (error.__cause__ or error) if isinstance(error, ModelRaised) else error
    name = type(cause).__name__
    try:
        return f"{name}: {cause}"
    except Exception:
        # The error's class is the model's, and may fail at this, too.
        return name
