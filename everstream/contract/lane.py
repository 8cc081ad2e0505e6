"""The lane of a model that serves one request at a time: one thread, with an event loop of its own. Called by `model`.

Models written for the contract share objects between calls, such as one `TextIteratorStreamer`, and fill them from
threads that they start. So a call's lane is free only when the call has returned and the threads that it started have
ended. Otherwise the next request could read what is left of this one.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import thread as pools
from typing import Any

from everstream.contract.leftovers import SharedQueues
from everstream.errors import ModelRaised

logger = logging.getLogger(__name__)

POLL_S = 0.01
OWN_THREADS = "everstream"
"""How the names of this process's own threads begin."""


class Lane:
    def __init__(self, shared: SharedQueues) -> None:
        self._shared = shared
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: set[threading.Thread] = set()
        self._is_free = True
        self._has_returned = True
        self._fault = ""
        """Why this process can serve no more requests."""
        self._freeing: asyncio.Task[None] | None = None
        self._on_thread_error: Callable[[str], None] | None = None
        self._next_hook = threading.excepthook

    async def run(
        self,
        call: Callable[[], Awaitable[None]],
        is_over: Callable[[], bool],
        on_thread_error: Callable[[str], None],
    ) -> None:
        """Wait until the call has returned and, unless `is_over`, the threads that it started have ended.

        Raises what the call raises. `on_thread_error` gets an error of one of its threads in words, in that thread. If
        this is cancelled, the lane goes on with the call. An async call is cancelled too, if no thread works for it.
        """
        assert self._is_free, "the lane is not free"
        self._is_free = self._has_returned = False
        self._on_thread_error = on_thread_error
        hosted = asyncio.run_coroutine_threadsafe(self._host(call, is_over), self._started_loop())
        try:
            await asyncio.shield(asyncio.wrap_future(hosted))
        except asyncio.CancelledError:
            if not self.has_threads():
                hosted.cancel()
            raise

    async def call(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Run something async in the lane's event loop, when it is not blocked by a call."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(function), self._started_loop()))

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

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._shared.note()
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name=f"{OWN_THREADS}-infer", daemon=True).start()
        return self._loop

    async def _host(self, call: Callable[[], Awaitable[None]], is_over: Callable[[], bool]) -> None:
        self._before = set(threading.enumerate())
        self._next_hook, threading.excepthook = threading.excepthook, self._thread_failed
        try:
            await call()
            self._has_returned = True
            while not is_over() and self.has_threads():
                await asyncio.sleep(POLL_S)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ModelRaised from error
        finally:
            self._has_returned = True
            self._freeing = asyncio.get_running_loop().create_task(self._free_when_quiet())

    async def _free_when_quiet(self) -> None:
        while self.has_threads():
            await asyncio.sleep(POLL_S)
        threading.excepthook = self._next_hook
        dropped, fault = self._shared.clear()
        if dropped:
            logger.warning("dropped %d items that a request left in the model's queues", dropped)
        self._shared.note()
        self._fault = self._fault or fault
        self._is_free = not self._fault

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


def _is_service(thread: threading.Thread) -> bool:
    """Whether it is one of our own, one of a library's background services (such as tqdm's monitor), or no thread of
    Python's that would ever be seen to end."""
    is_of_a_library = thread.daemon and type(thread) is not threading.Thread and type(thread).__module__ != "app"
    return is_of_a_library or isinstance(thread, threading._DummyThread) or thread.name.startswith(OWN_THREADS)


def _is_idle_worker(thread: threading.Thread, frames: dict[int, Any]) -> bool:
    """Whether it is a ThreadPoolExecutor's worker that waits for work."""
    frame = frames.get(thread.ident or 0)
    return frame is not None and frame.f_code is pools._worker.__code__


async def _awaited(function: Callable[[], Awaitable[Any]]) -> None:
    await function()
