"""The lane of a model that serves one request at a time: one thread, with an event loop of its own. Called by `model`.

Models written for the contract share objects between calls, such as one `TextIteratorStreamer`, and fill them from
threads that they start. So a call's lane is free only when the call has returned and the threads that it started have
ended. Otherwise the next request could read what is left of this one.
"""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import thread as pools
from typing import Any

from everstream.errors import ModelRaised

POLL_S = 0.01
OWN_THREADS = "everstream"
"""How the names of this process's own threads begin."""


class Lane:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._before: set[threading.Thread] = set()
        self._is_free = True
        self._has_returned = True
        self._ending: asyncio.Task[None] | None = None
        self._on_thread_error: Callable[[str], None] | None = None

    async def run(
        self,
        call: Callable[[], Awaitable[None]],
        is_over: Callable[[], bool],
        on_thread_error: Callable[[str], None],
    ) -> None:
        """Wait until the call has returned and, unless `is_over`, the threads that it started have ended.

        Raises what the call raises. `on_thread_error` gets an error of one of its threads in words, in that thread. If
        this is cancelled, the lane goes on with the call; at its next await the call is cancelled too.
        """
        assert self._is_free, "the lane is not free"
        self._is_free = self._has_returned = False
        self._on_thread_error = on_thread_error
        hosted = asyncio.run_coroutine_threadsafe(self._host(call, is_over), self._started_loop())
        await asyncio.wrap_future(hosted)

    async def call(self, function: Callable[[], Awaitable[Any]]) -> None:
        """Run something async in the lane's event loop, when it is not blocked by a call."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(function), self._started_loop()))

    async def settle(self, timeout_s: float) -> str:
        """Wait until the lane is free. Returns what still runs after the timeout, in words."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._is_free:
            if asyncio.get_running_loop().time() > deadline:
                return self._work_left()
            await asyncio.sleep(POLL_S)
        return ""

    def _work_left(self) -> str:
        if not self._has_returned:
            return "infer has not returned"
        names = ", ".join(repr(each.name) for each in self._started_threads())
        return f"threads that infer started still run ({names})"

    def _started_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name=f"{OWN_THREADS}-infer", daemon=True).start()
        return self._loop

    async def _host(self, call: Callable[[], Awaitable[None]], is_over: Callable[[], bool]) -> None:
        self._before = set(threading.enumerate())
        next_hook, threading.excepthook = threading.excepthook, self._thread_failed
        self._next_hook = next_hook
        try:
            await call()
            self._has_returned = True
            while not is_over() and self._started_threads():
                await asyncio.sleep(POLL_S)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ModelRaised from error
        finally:
            self._has_returned = True
            self._ending = asyncio.get_running_loop().create_task(self._free_when_quiet())

    async def _free_when_quiet(self) -> None:
        while self._started_threads():
            await asyncio.sleep(POLL_S)
        threading.excepthook = self._next_hook
        self._is_free = True

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        self._next_hook(failed)
        if self._on_thread_error and failed.thread not in self._before:
            kind = failed.exc_type.__name__
            self._on_thread_error(
                f"the model's thread {getattr(failed.thread, 'name', '')!r} raised {kind}: {failed.exc_value}"
            )

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
