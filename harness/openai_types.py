"""Checks JSON against the types that OpenAI publishes in its Python client, more strictly than the client itself.

Nothing is converted, and no field may be unknown, at any depth, besides those named.
"""

from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

import pydantic


def validated(kind: Any, encoded: bytes, others: Collection[str] = ()) -> Any:
    """The object in this JSON, of this type. Raises pydantic.ValidationError, or AssertionError for unknown fields that
    are not in `others`."""
    found = _adapter(kind).validate_json(encoded, strict=True)
    unknown = sorted(name for name in _unknown_fields(found, type(found).__name__) if name not in others)
    assert not unknown, unknown
    return found


@cache
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def _unknown_fields(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, pydantic.BaseModel):
        yield from (f"{place}.{name}" for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from _unknown_fields(getattr(value, name), f"{place}.{name}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _unknown_fields(item, f"{place}[{number}]")
