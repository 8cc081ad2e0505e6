"""The handler that a model streams through: `stream_output_handler` in the contract.

In: outputs from the model, from any thread. Out: the same outputs as JSON, to a `Sink` in the event loop's thread.

Outputs from other threads gather, and one callback hands all of them to the sink: waking the event loop for each would
cost more than the output. A thread blocks only while too much has gathered, or the log is slow (backpressure).
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Protocol

import msgspec

from everstream.contract.outputs import OutputSchema, as_dict, encode_output

logger = logging.getLogger(__name__)

_encode_json = msgspec.json.Encoder().encode

GATHERED_BYTES = 256 << 10
"""With more than this from other threads waiting for the event loop, those threads have to wait."""
ESCAPED_BYTES = 6
"""A character has at most so many in JSON."""
DRAIN_S = 0.5
"""How long a model may take to send what it has, after one of its threads raised."""
MESSAGE_CHARS = 500
NOT_RESUMABLE = (
    "the engine died, and the model, which started over, did not repeat the outputs that were already delivered"
)


class GenerationStopped(Exception):
    """Raised in a model that sends after its generation was stopped, if it asked for that (STOP_RAISES)."""


class Sink(Protocol):
    """Takes a handler's outputs. `engine.generation_task` implements it."""

    @property
    def writable(self) -> asyncio.Event:
        """Cleared while too much of the sent output is not in the log yet (backpressure)."""

    def put(self, output: bytes, resume: bytes, joinable: int) -> None:
        """Take one output in JSON, and what the model needs to resume after it, or b"".

        `joinable`: how many items `resume` has if the output is {"text": …}, `resume` is a list, and both may be joined
        with their neighbours; otherwise 0. The chat model has an item for each token.
        """

    def end(self, state: str, data: dict[str, Any]) -> None:
        """The model's own end."""

    def progress(self) -> None:
        """The model works, although it has nothing to put. May be called from any thread."""

    def reject(self, data: dict[str, Any]) -> None:
        """End as `failed` after what was put, because of what the model sent, and stop the model's work."""


class HandlerOptions(msgspec.Struct, frozen=True):
    """`stop_raises`: a model that sends after a stop gets GenerationStopped. By default its outputs are dropped."""

    max_output_bytes: int
    stop_raises: bool = False


class _Awaitable:
    """What sending returns: an async `infer` may await it, to let others run and to wait while the log is slow."""

    __slots__ = ("_handler",)

    def __init__(self, handler: "StreamOutputHandler") -> None:
        self._handler = handler

    def __await__(self) -> Generator[Any, Any, None]:
        yield from asyncio.sleep(0).__await__()
        yield from self._handler.drain().__await__()


class StreamOutputHandler:
    """One generation's handler. Its methods may be called from any thread; create it in the event loop's thread."""

    def __init__(
        self, sink: Sink, delivered: list[dict[str, Any]], resume_states: list[Any], options: HandlerOptions
    ) -> None:
        self.resume_states = resume_states
        """For each of `delivered`, the `resume` that the model gave, or None. Joined outputs have joined lists."""
        self.finalised = False
        """Whether the generation has ended, by the model or because of it."""
        self.has_sent = False
        """Whether this run of the model has sent anything, new or repeated."""
        self._delivered = delivered
        self._replayed = deque(delivered)
        self._schema = OutputSchema()
        if delivered:
            self._schema.change_in(delivered[0])
        self._takes_text = False
        """Whether {"text": …} fits the schema, with nothing left to replay."""
        self._sink = sink
        self._is_writable = sink.writable.is_set
        self._options = options
        self._stopped = False
        self._has_warned = False
        self._error_to_come = ""
        self._short_text = options.max_output_bytes // ESCAPED_BYTES - len('{"text":""}')
        self._awaitable = _Awaitable(self)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._lock = threading.RLock()
        self._gathered: deque[tuple[bytes, bytes, int]] = deque()
        self._gathered_bytes = 0
        self._end: Callable[[], None] | None = None
        self._is_scheduled = False
        self._waiting: asyncio.Task[None] | None = None
        self._has_room = threading.Event()
        self._has_room.set()

    @property
    def has_delivered(self) -> bool:
        """Whether an earlier engine delivered outputs. Unlike reading `delivered`, this promises nothing."""
        return bool(self._delivered)

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The outputs that are already in the log, after an engine's death.

        A model that reads this resumes after them. One that never does starts over: its first outputs are compared
        with these. Equal ones are dropped; a different one ends the generation with `not_resumable`.
        """
        self._replayed.clear()
        return self._delivered

    @property
    def stopped(self) -> bool:
        """Whether the generation was stopped, so that a long-running model can return early."""
        return self._stopped

    @property
    def writable(self) -> bool:
        """False while too much of the sent output is not in the log yet (backpressure)."""
        return self._is_writable()

    async def drain(self) -> None:
        """Wait while too much of the sent output is not in the log yet, like asyncio's `StreamWriter.drain`.

        Outside the engine's event loop there is nothing to wait for, because sending blocks.
        """
        if threading.get_ident() == self._thread:
            await self._sink.writable.wait()

    def send_streamed_output(self, output_dict: dict[str, Any], resume: Any = None) -> Awaitable[None]:
        """Send one output to the readers; `resume` (JSON) is for the model only, in case it has to resume from here.

        A list as `resume` means that the output may be joined with its neighbours, and the lists with it.
        In a thread, the call blocks while the log is slow to take the output; an async `infer` can await `drain`.

        An output that breaks the contract ends the generation as `failed`. It does not raise in the model: unwinding
        `infer` early would leave its threads' output to the next request.
        """
        if self.finalised or self._stopped:
            self._drop()
            return self._awaitable
        try:
            output = as_dict(output_dict)
            encoded, most = encode_output(output), self._options.max_output_bytes
            state = b"" if resume is None else _encode_json(resume)
        except Exception as error:
            self.fail("model_error", f"an output can't be sent: {type(error).__name__}: {error}")
            return self._awaitable
        if len(encoded) > most:
            size = f"an output has {len(encoded)} bytes of JSON"
            self.fail("model_error", f"{size}; at most {most} are allowed (EVERSTREAM_MAX_OUTPUT_BYTES)")
            return self._awaitable
        joinable = len(resume) if isinstance(resume, list) and len(output) == 1 and _has_text(output) else 0
        if threading.get_ident() == self._thread:
            self._accept(output, encoded, state, joinable)
        else:
            # Several threads may send at once.
            with self._lock:
                self._accept(output, encoded, state, joinable)
            self._has_room.wait()
        return self._awaitable

    def send_text(self, text: str, resume: list[Any]) -> None:
        """The same as `send_streamed_output({"text": text}, resume)`, for the chat model, which calls it for every
        token: in the event loop's thread, it skips what only other outputs need."""
        is_open = self._takes_text and not (self.finalised or self._stopped or self._gathered)
        if is_open and len(text) < self._short_text and threading.get_ident() == self._thread:
            self._sink.put(b'{"text":%b}' % _encode_json(text), _encode_json(resume), len(resume))
        else:
            self.send_streamed_output({"text": text}, resume)

    def finalise_streamed_output(
        self,
        finish_reason: str = "stop",
        usage: dict[str, Any] | None = None,
        choices: list[dict[str, Any]] | None = None,
    ) -> Awaitable[None]:
        """End the generation; a second call does nothing. A model that returns without calling it is finalised.

        `choices` is for chat models, see `chat_outputs.Ending`.
        """
        if self._stopped:
            self._drop()
        elif self._error_to_come:
            self.fail("model_error", self._error_to_come)
        elif self._replayed:
            self.fail("not_resumable", NOT_RESUMABLE)
        else:
            data = {"finish_reason": finish_reason, "usage": usage} | ({"choices": choices} if choices else {})
            self._finish(partial(self._sink.end, "done", data))
        return self._awaitable

    def fail(self, code: str, message: str, param: str | None = None) -> None:
        """End the generation as `failed`, after all that was sent. Does nothing after another end."""
        data = {"code": code, "message": message[:MESSAGE_CHARS]} | ({"param": param} if param else {})
        self._finish(partial(self._sink.reject, data))

    def fail_soon(self, message: str) -> None:
        """A thread of the model raised: fail, but not before the model has sent what the thread had made until then."""
        self._error_to_come = message
        fail = partial(self.fail, "model_error", message)
        self._loop.call_soon_threadsafe(self._loop.call_later, DRAIN_S, fail)

    def stop(self) -> None:
        """Accept nothing more. The model is not disturbed: what it still sends is dropped."""
        with self._lock:
            self._stopped = True
            self._gathered.clear()
            self._end = None
        self._has_room.set()

    def _drop(self) -> None:
        """Discard what arrives after the end. Raises GenerationStopped if the model asked for that."""
        if self._options.stop_raises:
            raise GenerationStopped
        if not self._stopped and not self._has_warned:
            self._has_warned = True
            logger.warning("the model sent something after the end of a generation; it is dropped")

    def _accept(self, output: dict[str, Any], encoded: bytes, resume: bytes, joinable: int) -> None:
        self.has_sent = True
        if change := self._schema.change_in(output):
            self.fail("output_schema_changed", f"all outputs must have the same keys and types: {change}")
        elif self._replayed:
            # The model has started over: drop what the log has.
            self._sink.progress()
            if msgspec.json.decode(encoded) != self._replayed.popleft():
                self.fail("not_resumable", NOT_RESUMABLE)
        elif threading.get_ident() == self._thread and not self._gathered:
            self._takes_text = joinable > 0
            self._sink.put(encoded, resume, joinable)
        else:
            self._gather(encoded, resume, joinable)

    def _gather(self, output: bytes, resume: bytes, joinable: int) -> None:
        with self._lock:
            if self.finalised or self._stopped:
                return
            self._gathered.append((output, resume, joinable))
            self._gathered_bytes += len(output)
            if self._gathered_bytes > GATHERED_BYTES:
                self._has_room.clear()
            self._schedule()

    def _finish(self, end: Callable[[], None]) -> None:
        """The first end counts."""
        with self._lock:
            if self.finalised or self._stopped:
                return
            self.finalised = True
            self._end = end
            self._schedule()
        if threading.get_ident() == self._thread:
            self._hand_over()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        """Hand what has gathered to the sink, in the event loop's thread."""
        with self._lock:
            self._is_scheduled = False
        while self._gathered and self._sink.writable.is_set():
            with self._lock:
                output = self._gathered.popleft()
                self._gathered_bytes -= len(output[0])
            self._sink.put(*output)
        if self._end and not self._gathered:
            end, self._end = self._end, None
            end()
        if self._stopped or (self._sink.writable.is_set() and not self._gathered):
            self._has_room.set()
        elif self._waiting is None:
            self._has_room.clear()
            self._waiting = self._loop.create_task(self._hand_over_when_writable())

    async def _hand_over_when_writable(self) -> None:
        await self._sink.writable.wait()
        self._waiting = None
        self._hand_over()


def _has_text(output: dict[str, Any]) -> bool:
    return isinstance(output.get("text"), str)
