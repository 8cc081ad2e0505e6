"""Runs a model that serves one request at a time: one thread, which runs all of the model's code.

Models written for the contract share objects between calls, such as one `TextIteratorStreamer`, and fill them from
threads that they start. So the next call begins only when the last one has returned, and the threads, tasks and child
processes that it started have ended. Otherwise the next request could read what is left of this one.

It is the same thread for `initialize`, `infer` and `finalize`, because libraries keep settings per thread (torch's
device, for one). No event loop runs in it while plain code does, so that this code may use `asyncio.run`. Called by
`model`.
"""

import asyncio
import logging
import multiprocessing
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import thread as pools
from contextlib import contextmanager
from functools import partial
from multiprocessing import pool as thread_pools
from multiprocessing.dummy import DummyProcess
from multiprocessing.process import BaseProcess
from typing import Any

from everstream.contract.output_handler import GenerationStopped
from everstream.contract.shared_queues import SharedQueues
from everstream.errors import ModelRaised

logger = logging.getLogger(__name__)

POLL_S = 0.01
REFILL_S = 0.1
"""How long a queue that a request left something in is watched for more."""
PROCESS_POOL = "concurrent.futures.process"
OWN_THREADS = "everstream"
"""How the names of this process's own threads begin."""

Complete = Callable[[Awaitable[Any]], Any]
"""Runs something async to its end, in the executor's event loop."""


class SerialExecutor:
    def __init__(self, shared: SharedQueues, is_own: Callable[[str], bool]) -> None:
        """`is_own`: whether code in this file is the model's, not a library's."""
        self._shared = shared
        self._is_own = is_own
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[Any] | None = None
        self._before: set[threading.Thread] = set()
        self._tasks_before: set[asyncio.Task[Any]] = set()
        self._children_before: set[BaseProcess] = set()
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
        """Wait until the call has returned and, unless `is_over`, everything that it started has ended.

        Raises what the call raises; what is no ordinary exception, such as SystemExit, as ModelRaised.
        `on_thread_error` gets an error of one of its threads in words, in that thread. If this is cancelled, the call
        goes on. What is async in it is cancelled too, if no thread works for it.
        """
        assert self._is_free, "a call is still running"
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

    async def wait_until_idle(self, timeout_s: float) -> str:
        """Wait until nothing of the last call runs. Returns why that does not happen, in words."""
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
        threads = [repr(each.name) for each in self._started_threads()]
        if threads:
            return f"threads that infer started still run ({', '.join(threads)})"
        others = [each.get_name() for each in self._started_tasks()] + [each.name for each in self._started_children()]
        return f"tasks or processes that infer started still run ({', '.join(others)})"

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        # Threads inherit this, and daemon threads count as background services. This one is a daemon for its own end.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        while True:
            self._jobs.get()()

    def _serve(self, call: Callable[[Complete], None], is_over: Callable[[], bool], answered: "Future[None]") -> None:
        frames = sys._current_frames()
        # An idle worker of a pool may work for this call.
        self._before = {each for each in threading.enumerate() if not _is_idle_worker(each, frames)}
        self._tasks_before = asyncio.all_tasks(self._loop)
        self._children_before = set(multiprocessing.active_children())
        self._next_hook, threading.excepthook = threading.excepthook, self._thread_failed
        with _reporting(answered):
            try:
                call(self._complete)
            except BaseException:
                if services := [each.name for each in self._before if self._is_models_service(each)]:
                    names = ", ".join(services)
                    self._fault = f"infer raised, and threads of the model may still work for the request ({names})"
                raise
            finally:
                self._has_returned = True
            self._wait_for_work(is_over)
        self._wait_for_work()
        threading.excepthook = self._next_hook
        self._clear_queues()
        self._is_free = not self._fault

    def _clear_queues(self) -> None:
        dropped, fault = self._shared.clear()
        if dropped:
            logger.warning("dropped %d items that a request left in the model's queues", dropped)
            self._loop.run_until_complete(asyncio.sleep(REFILL_S))
            if self._shared.clear()[0]:
                fault = fault or "a queue that requests share is still being filled"
        self._shared.note()
        self._fault = self._fault or fault

    def _wait_for_work(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait for the threads, tasks and child processes that the call started."""
        # A worker that has just taken its work looks idle for an instant.
        polls = 2 if self._has_pool_workers() else 1
        quiet = 0
        while quiet < polls and not is_over():
            is_quiet = not (self.has_threads() or self._started_tasks() or self._started_children())
            quiet = quiet + 1 if is_quiet else 0
            if quiet < polls:
                # In the event loop, for what an async call has left there.
                self._loop.run_until_complete(asyncio.sleep(POLL_S))

    def _complete(self, awaitable: Awaitable[Any]) -> Any:
        self._task = self._loop.create_task(_awaited(awaitable))
        try:
            return self._loop.run_until_complete(self._task)
        finally:
            self._task = None

    def _cancel(self) -> None:
        for task in [*([self._task] if self._task else []), *self._started_tasks()]:
            task.cancel()

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        self._next_hook(failed)
        thread = failed.thread
        # A thread may end itself by these two.
        is_end = issubclass(failed.exc_type, (SystemExit, GenerationStopped))
        if is_end or thread is None or thread in self._before or self._is_service(thread) or not self._on_thread_error:
            return
        error = f"the model's thread {thread.name!r} raised {failed.exc_type.__name__}: {failed.exc_value}"
        self._on_thread_error(error)
        # What it shares with other requests, such as a streamer's cache, may be left half-way.
        self._fault = error

    def _started_threads(self) -> list[threading.Thread]:
        frames = sys._current_frames()
        started = [each for each in threading.enumerate() if each not in self._before]
        return [each for each in started if not self._is_service(each) and not _is_idle_worker(each, frames)]

    def _is_models_service(self, thread: threading.Thread) -> bool:
        """Whether the model's own code started it, in `initialize`."""
        target = getattr(thread, "_target", None)
        file = getattr(getattr(target, "__code__", None), "co_filename", "")
        return thread.is_alive() and (self._is_own(file) or self._is_own(_class_file(thread)))

    def _started_tasks(self) -> list[asyncio.Task[Any]]:
        """Only those of the model's own code: a library's, such as an engine's loop, live on."""
        started = asyncio.all_tasks(self._loop) - self._tasks_before
        codes = {task: getattr(task.get_coro(), "cr_code", None) for task in started if task is not self._task}
        return [task for task, code in codes.items() if code and self._is_own(code.co_filename)]

    def _started_children(self) -> list[BaseProcess]:
        """Child processes, but for the workers of pools: those wait for work."""
        started = [each for each in multiprocessing.active_children() if each not in self._children_before]
        return [each for each in started if not each.daemon and _target_module(each) != PROCESS_POOL]

    def _has_pool_workers(self) -> bool:
        frames = sys._current_frames()
        return any(_is_idle_worker(each, frames) for each in threading.enumerate())

    def _is_service(self, thread: threading.Thread) -> bool:
        """Whether it is one of our own, one of a library's background services (such as tqdm's monitor), or no thread
        of Python's that would ever be seen to end."""
        kind = type(thread)
        if isinstance(thread, threading._DummyThread) or thread.name.startswith(OWN_THREADS):
            return True
        if kind.__module__ == PROCESS_POOL or (thread.daemon and _target_module(thread).startswith("multiprocessing.")):
            # The threads that serve pools and queues of processes.
            return not isinstance(thread, DummyProcess)
        return thread.daemon and kind not in (threading.Thread, DummyProcess) and not self._is_own(_class_file(thread))


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


_IDLE_CODES = (pools._worker.__code__, thread_pools.worker.__code__)  # type: ignore[attr-defined]


def _is_idle_worker(thread: threading.Thread, frames: dict[int, Any]) -> bool:
    """Whether it is a thread pool's worker that waits for work."""
    frame = frames.get(thread.ident or 0)
    return frame is not None and frame.f_code in _IDLE_CODES


def _class_file(thread: threading.Thread) -> str:
    """Where the thread's class is from."""
    return getattr(sys.modules.get(type(thread).__module__), "__file__", None) or ""


def _target_module(work: threading.Thread | BaseProcess) -> str:
    """Where the function that it runs is from."""
    return getattr(getattr(work, "_target", None), "__module__", None) or ""


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
