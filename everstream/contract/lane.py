"""The lane of a model that serves one request at a time: one thread, which runs all of the model's code.

Models written for the contract share objects between calls, such as one `TextIteratorStreamer`, and fill them from
threads that they start. So a call's lane is free only when the call has returned and the threads that it started have
ended. Otherwise the next request could read what is left of this one.

It is the same thread for `initialize`, `infer` and `finalize`, because libraries keep settings per thread (torch's
device, for one). No event loop runs in it while plain code does, so that this code may use `asyncio.run`. Called by
`model`.
"""

import asyncio
import logging
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import thread as pools
from contextlib import contextmanager
from functools import partial
from typing import Any

from everstream.contract.leftovers import SharedQueues
from everstream.errors import ModelRaised

logger = logging.getLogger(__name__)

POLL_S = 0.01
OWN_THREADS = "everstream"
"""How the names of this process's own threads begin."""

Complete = Callable[[Awaitable[Any]], Any]
"""Runs something async to its end, in the lane's event loop."""


class Lane:
    def __init__(self, shared: SharedQueues) -> None:
        self._shared = shared
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] | None = None
        self._before: set[threading.Thread] = set()
        self._is_free = True
        self._has_returned = True
        self._fault = ""
        """Why this process can serve no more requests."""
        self._on_thread_error: Callable[[str], None] | None = None
        self._next_hook = threading.excepthook
        threading.Thread(target=self._work, name=f"{OWN_THREADS}-infer", daemon=True).start()

    async def run(
        self,
        call: Callable[[Complete], None],
        is_over: Callable[[], bool],
        on_thread_error: Callable[[str], None],
    ) -> None:
        """Wait until the call has returned and, unless `is_over`, the threads that it started have ended.

        Raises what the call raises; what is no ordinary exception, such as SystemExit, as ModelRaised.
        `on_thread_error` gets an error of one of its threads in words, in that thread. If this is cancelled, the lane
        goes on with the call. What is async in it is cancelled too, if no thread works for it.
        """
        assert self._is_free, "the lane is not free"
        self._is_free = self._has_returned = False
        self._on_thread_error = on_thread_error
        answered: Future[None] = Future()
        self._jobs.put(partial(self._serve, call, is_over, answered))
        try:
            await asyncio.shield(asyncio.wrap_future(answered))
        except asyncio.CancelledError:
            if not self.has_threads():
                self._loop.call_soon_threadsafe(self._cancel)
            raise

    async def call(self, function: Callable[[], Any]) -> None:
        """Run something before or after all requests; plain or async. Raises as `run` does."""
        ended: Future[None] = Future()

        def job() -> None:
            with _reporting(ended):
                result = function()
                if hasattr(result, "__await__"):
                    self._complete(result)
                # Some models keep things in queues from the start.
                self._shared.note()

        self._jobs.put(job)
        await asyncio.wrap_future(ended)

    async def settle(self, timeout_s: float) -> str:
        """Wait until the lane is free. Returns why it does not become free, in words."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._is_free and not self._fault:
            if asyncio.get_running_loop().time() > deadline:
                return f"{self._work_left()} {timeout_s:g} s after its generation ended"
            await asyncio.sleep(POLL_S)
        return self._fault

    def has_threads(self) -> bool:
        """Whether threads that the call started still run. They may fill something that the call must empty."""
        return bool(self._started_threads())

    def _work_left(self) -> str:
        if not self._has_returned:
            return "infer has not returned"
        names = ", ".join(repr(each.name) for each in self._started_threads())
        return f"threads that infer started still run ({names})"

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        while True:
            self._jobs.get()()

    def _serve(self, call: Callable[[Complete], None], is_over: Callable[[], bool], answered: "Future[None]") -> None:
        self._before = set(threading.enumerate())
        self._next_hook, threading.excepthook = threading.excepthook, self._thread_failed
        with _reporting(answered):
            try:
                call(self._complete)
            finally:
                self._has_returned = True
            while not is_over() and self.has_threads():
                self._pause()
        while self.has_threads():
            self._pause()
        threading.excepthook = self._next_hook
        dropped, fault = self._shared.clear()
        if dropped:
            logger.warning("dropped %d items that a request left in the model's queues", dropped)
        self._shared.note()
        self._fault = self._fault or fault
        self._is_free = not self._fault

    def _complete(self, awaitable: Awaitable[Any]) -> Any:
        self._task = self._loop.create_task(_awaited(awaitable))
        try:
            return self._loop.run_until_complete(self._task)
        finally:
            self._task = None

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _pause(self) -> None:
        # In the event loop, for what an async call has left running there.
        self._loop.run_until_complete(asyncio.sleep(POLL_S))

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        self._next_hook(failed)
        if self._on_thread_error and failed.thread not in self._before:
            name = failed.thread.name if failed.thread else ""
            error = f"the model's thread {name!r} raised {failed.exc_type.__name__}: {failed.exc_value}"
            self._on_thread_error(error)
            # What it shares with other requests, such as a streamer's cache, may be left half-way.
            self._fault = error

    def _started_threads(self) -> list[threading.Thread]:
        frames = sys._current_frames()
        started = [each for each in threading.enumerate() if each not in self._before]
        return [each for each in started if not _is_service(each) and not _is_idle_worker(each, frames)]


@contextmanager
def _reporting(future: "Future[None]") -> Iterator[None]:
    """Report the end of the body to another thread."""
    try:
        yield
    except StopIteration as error:
        # No future takes it.
        future.set_exception(_raised(error))
    except Exception as error:
        future.set_exception(error)
    except BaseException as error:
        future.set_exception(_raised(error))
    else:
        future.set_result(None)


def _raised(cause: BaseException) -> ModelRaised:
    error = ModelRaised()
    error.__cause__ = cause
    return error


def _is_service(thread: threading.Thread) -> bool:
    """Whether it is one of our own, one of a library's background services (such as tqdm's monitor), or no thread of
    Python's that would ever be seen to end."""
    is_of_a_library = thread.daemon and type(thread) is not threading.Thread and type(thread).__module__ != "app"
    return is_of_a_library or isinstance(thread, threading._DummyThread) or thread.name.startswith(OWN_THREADS)


def _is_idle_worker(thread: threading.Thread, frames: dict[int, Any]) -> bool:
    """Whether it is a ThreadPoolExecutor's worker that waits for work."""
    frame = frames.get(thread.ident or 0)
    return frame is not None and frame.f_code is pools._worker.__code__


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
