"""Nested arrays, in row-major order: how deep their JSON is, and their items without the nesting. Pure."""

from itertools import chain
from typing import Any

import msgspec


def depth_of(data: msgspec.Raw) -> int:
    """The number of brackets that the JSON begins with."""
    start = bytes(memoryview(data)[:1024]).translate(None, b" \t\r\n")
    return len(start) - len(start.lstrip(b"["))


def nested(kind: Any, depth: int) -> Any:
    """The type of an array of `kind` that has this depth."""
    for _ in range(depth):
        kind = list[kind]
    return kind


def flattened(items: list[Any], depth: int) -> tuple[list[Any], list[int]]:
    """The innermost items, and the shape. -1 is a dimension whose arrays have different lengths."""
    shape = [len(items)]
    for _ in range(depth - 1):
        lengths = {len(each) for each in items}
        items = list(chain.from_iterable(items))
        shape.append(lengths.pop() if len(lengths) == 1 else -1)
    return items, shape
