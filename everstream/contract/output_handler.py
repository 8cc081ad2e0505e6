"""The handler that a model streams through: `stream_output_handler` in the contract.

In: outputs from the model, from any thread. Out: the same outputs as JSON, to a `Sink` in the event loop's thread.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

_encode_json = msgspec.json.Encoder().encode


class GenerationStopped(Exception):
    """Raised in a model that still sends after its generation was stopped."""


class Sink(Protocol):
    """Takes a handler's outputs. `engine.generation_task` implements it."""

    @property
    def writable(self) -> asyncio.Event:
        """Cleared while too much of the sent output is not in the log yet (backpressure)."""

    def put(self, output: bytes, resume: bytes, may_join: bool) -> None:
        """Take one output in JSON, and what the model needs to resume after it, or b"".

        `may_join`: it is {"text": …}, `resume` is a list, and both may be joined with their neighbours.
        """

    def end(self, state: str, data: object) -> None: ...


class StreamOutputHandler:
    """One generation's handler. Its methods may be called from any thread; create it in the event loop's thread."""

    def __init__(
        self, sink: Sink, delivered: list[dict[str, Any]], resume_states: list[Any], max_output_bytes: int
    ) -> None:
        self.resume_states = resume_states
        """For each of `delivered`, the `resume` that the model gave, or None. Joined outputs have joined lists."""
        self.finalised = False
        self._delivered = delivered
        self._to_skip = len(delivered)
        self._sink = sink
        self._max_output_bytes = max_output_bytes
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The outputs that are already in the log, after an engine's death.

        A model that reads this resumes after them. One that never does starts over: its first outputs, as many as were
        delivered, are skipped. Their texts join if the model says the same twice.
        """
        self._to_skip = 0
        return self._delivered

    def send_streamed_output(self, output: dict[str, Any], resume: Any = None) -> None:
        """Send one output to the readers; `resume` (JSON) is for the model only, in case it has to resume from here.

        A list as `resume` means that the output may be joined with its neighbours, and the lists with it.
        In a thread, the call blocks while the log is slow to take the output; an async `infer` can await `drain`.
        """
        if not isinstance(output, dict):
            raise TypeError(f"send_streamed_output takes a dict, got {type(output).__name__}")
        if self.finalised:
            raise RuntimeError("send_streamed_output was called after finalise_streamed_output")
        if self._to_skip:
            self._to_skip -= 1
            return
        # Encode here, so that the model gets the error if the output is not JSON, or too large.
        encoded = _encode_json(output)
        if len(encoded) > self._max_output_bytes:
            raise ValueError(
                f"an output has {len(encoded)} bytes of JSON; at most {self._max_output_bytes} are allowed"
            )
        state = b"" if resume is None else _encode_json(resume)
        may_join = (
            isinstance(resume, list) and bool(resume) and len(output) == 1 and isinstance(output.get("text"), str)
        )
        self._call(self._sink.put, encoded, state, may_join)

    @property
    def writable(self) -> bool:
        """False while too much of the sent output is not in the log yet (backpressure)."""
        return self._sink.writable.is_set()

    async def drain(self) -> None:
        """Wait while too much of the sent output is not in the log yet, like asyncio's `StreamWriter.drain`."""
        await self._sink.writable.wait()

    def finalise_streamed_output(self, finish_reason: str = "stop", usage: dict[str, int] | None = None) -> None:
        """End the generation; a second call does nothing. A model that returns without calling it is finalised."""
        if self.finalised:
            return
        self.finalised = True
        self._call(self._sink.end, "done", {"finish_reason": finish_reason, "usage": usage})

    def stop(self) -> None:
        """Accept nothing more: later sends raise GenerationStopped."""
        self._stopped = True

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
