"""Lines as messages. Pure, but for reading."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_LINE_BYTES = 256 << 10
"""A longer line becomes several messages."""


def read_lines(source: BinaryIO) -> Iterator[str]:
    while line := source.readline(MAX_LINE_BYTES):
        yield text_of(line)


def text_of(line: bytes) -> str:
    """Without its end. What is not UTF-8 is replaced."""
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")


def data_of(text: str, kind: str | None) -> Any:
    """`kind`: json, text, or None: objects and arrays are JSON, and the rest is text. Raises ValueError."""
    if kind == "text" or (kind is None and not text.lstrip().startswith(("{", "["))):
        return text
    try:
        data = json.loads(text)
        # Also refuses what JSON has no form for, such as NaN and lone surrogates.
        json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        if kind == "json":
            raise ValueError(f"this is not JSON: {error}: {text[:100]!r}") from None
        return text
    return data
