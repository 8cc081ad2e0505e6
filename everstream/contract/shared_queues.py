"""The queues that a model's requests share, and what one of them left there. Called by `serial_executor`.

The public streaming templates read a shared `TextIteratorStreamer`, a queue that a thread fills. When `infer` ends
before it has read all of that, the rest stays in the queue, and the next request would send it to another user.
"""

import asyncio
import itertools
import logging
import multiprocessing.queues
import queue
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)

DEPTH = 4
MAX_OBJECTS = 5000
"""Looked at per request, which takes about a millisecond: a model may hold a tree of many thousands."""
_KINDS = (queue.Queue, queue.SimpleQueue, asyncio.Queue, multiprocessing.queues.Queue)
_SCALARS = (str, bytes, int, float, bool, type(None), ModuleType)


class SharedQueues:
    """The queues among the attributes of a model and its class, and the globals of its modules, and inside those."""

    def __init__(self, model: Any, is_own: Callable[[str], bool]) -> None:
        """`is_own`: whether a module in this file is the model's, not a library's."""
        self._model = model
        self._is_own = is_own
        self._sizes: dict[int, int] = {}
        self._has_warned = False

    def note(self) -> None:
        """Remember how full each is, while no request runs. Some models keep things there, such as idle workers."""
        self._sizes = {id(each): each.qsize() for each in self._queues()}

    def clear(self) -> tuple[int, str]:
        """Returns the number of items dropped, and why a queue can't be cleared ("" if all could).

        A queue that was empty before the request is emptied.
        """
        dropped = 0
        for each in self._queues():
            before = self._sizes.get(id(each), 0)
            if before and each.qsize() > before:
                return dropped, "a request left something in a queue that other requests share"
            while not before and _drop_one(each):
                dropped += 1
        return dropped, ""

    def _queues(self) -> Iterator[Any]:
        modules = [each for each in list(sys.modules.values()) if self._is_own(getattr(each, "__file__", None) or "")]
        level: list[Any] = [self._model, vars(type(self._model)), *(vars(module) for module in modules)]
        seen: set[int] = set()
        for _ in range(DEPTH):
            inner: list[Any] = []
            for value in (value for owner in level for value in _parts(owner)):
                if id(value) in seen or isinstance(value, _SCALARS):
                    continue
                if len(seen) > MAX_OBJECTS:
                    self._warn()
                    return
                seen.add(id(value))
                if isinstance(value, _KINDS):
                    yield value
                elif not isinstance(value, type):
                    inner.append(value)
            level = inner

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning("the model holds too many objects to look for shared queues in all of them")


def _parts(owner: Any) -> list[Any]:
    if isinstance(owner, Mapping):
        return list(itertools.islice(owner.values(), MAX_OBJECTS))
    if isinstance(owner, (list, tuple)):
        return list(itertools.islice(owner, MAX_OBJECTS))
    # Objects of libraries may answer to any attribute, or fail at it.
    with suppress(Exception):
        slots = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
        parts = [getattr(owner, name, None) for name in slots if name != "__dict__"]
        return parts + list(getattr(owner, "__dict__", {}).values())
    return []


def _drop_one(each: Any) -> bool:
    try:
        each.get_nowait()
    except (queue.Empty, asyncio.QueueEmpty):
        return False
    if hasattr(each, "task_done"):
        # For whoever joins the queue.
        each.task_done()
    return True
