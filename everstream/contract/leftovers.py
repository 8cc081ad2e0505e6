"""What a request may leave behind in the objects that a model's requests share. Called by `lane`.

The public streaming templates read a shared `TextIteratorStreamer`, a queue that a thread fills. When `infer` ends
before it has read all of that, the rest stays in the queue, and the next request would send it to another user.
"""

import asyncio
import queue
from collections.abc import Iterator
from typing import Any

DEPTH = 3
MAX_OBJECTS = 2000
"""Looked at per request, which takes about a millisecond: a model may hold a tree of many thousands."""
_KINDS = (queue.Queue, queue.SimpleQueue, asyncio.Queue)


class SharedQueues:
    """The queues among a model's attributes, and among those of its attributes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._sizes: dict[int, int] = {}

    def note(self) -> None:
        """Remember how full each is, while no request runs. Some models keep things there, such as idle workers."""
        self._sizes = {id(each): each.qsize() for each in _queues(self._model)}

    def clear(self) -> tuple[int, str]:
        """Drop what a request left in queues that were empty before. Returns how many items that were, and why it can't
        be done, if it can't."""
        dropped = 0
        for each in _queues(self._model):
            before = self._sizes.get(id(each), 0)
            if before and each.qsize() > before:
                return dropped, "a request left something in a queue that other requests share"
            while not before and _drop_one(each):
                dropped += 1
        return dropped, ""


def _drop_one(each: Any) -> bool:
    try:
        each.get_nowait()
    except (queue.Empty, asyncio.QueueEmpty):
        return False
    return True


def _queues(model: Any) -> Iterator[Any]:
    level, seen = [model], {id(model)}
    for _ in range(DEPTH):
        inner: list[Any] = []
        for owner in level:
            for value in list(getattr(owner, "__dict__", {}).values()):
                if id(value) in seen or len(seen) > MAX_OBJECTS or isinstance(value, type):
                    continue
                seen.add(id(value))
                if isinstance(value, _KINDS):
                    yield value
                elif hasattr(value, "__dict__"):
                    inner.append(value)
        level = inner
