"""A model's outputs: to JSON, and held to one schema for the whole generation. Pure. Called by `output_handler`.

In: the dict that a model sends, yields or returns. Out: its JSON, or an error that names the key.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

_KINDS = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}
NULL = "null"


def encode_output(output: Mapping[str, Any]) -> bytes:
    """Besides JSON's types it takes NumPy's and torch's scalars and arrays, pydantic's models, bytes (as base64), and
    dates and times (ISO 8601). Raises TypeError, ValueError."""
    encoded = _encode(output)
    # JSON has no NaN or infinity: msgspec writes null for them.
    if b"null" in encoded:
        for key, value in output.items():
            _check_finite(key, value)
    if b"\n" in encoded or b"\t" in encoded:
        # Of a `msgspec.Raw`, which is copied as it is.
        return msgspec.json.format(encoded, indent=-1)
    return encoded


def as_dict(output: Any) -> dict[str, Any]:
    """The output as a dict. Raises TypeError."""
    if type(output) is dict:
        return output
    if hasattr(output, "model_dump"):
        # A pydantic model, as in `@inferless.response`.
        output = output.model_dump()
    if not isinstance(output, Mapping):
        raise TypeError(f"an output must be a dict, got {type(output).__name__}")
    return dict(output)


class OutputSchema:
    """The keys and types of a generation's first output, which all its outputs keep, as the contract demands.

    The types are JSON's, so 1 may be followed by 1.5. A null may stand for any type.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, str] | None = None

    def change_in(self, output: Mapping[str, Any]) -> str:
        """What is different in this output, in words; empty: nothing."""
        known = self._kinds
        if known is None:
            self._kinds = {key: _kind(value) for key, value in output.items()}
            return ""
        if output.keys() != known.keys():
            return f"the first output had the keys {_names(known)}, this one has {_names(output)}"
        for key, value in output.items():
            kind = _KINDS.get(type(value)) or _kind(value)
            if kind != known[key] and NULL not in (kind, known[key]):
                return f"{key!r} was {_a(known[key])} in the first output, and is {_a(kind)} now"
            if known[key] == NULL:
                known[key] = kind
        return ""


def _plain(value: Any) -> Any:
    """msgspec calls this for types that it doesn't know."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "model_dump"):
        return value.model_dump()
    raise TypeError(f"an output holds an object of type {type(value).__name__}, which can't be sent as JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _check_finite(key: str, value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the output {key!r} holds {value}, which JSON can't represent")
    elif isinstance(value, Mapping):
        for inner in value.values():
            _check_finite(key, inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            _check_finite(key, inner)
    elif hasattr(value, "tolist"):
        _check_finite(key, value.tolist())
    elif hasattr(value, "model_dump"):
        _check_finite(key, value.model_dump())


def _kind(value: Any) -> str:
    """The type of a value in JSON."""
    if value is None:
        return NULL
    if kind := _KINDS.get(type(value)):
        return kind
    if hasattr(value, "ndim") and hasattr(value, "item"):
        # Arrays and scalars of NumPy and torch.
        return "array" if value.ndim else _kind(value.item())
    # The value's own JSON tells: there are many types, but few kinds of JSON.
    first = _encode(value)[:1]
    return {b'"': "string", b"[": "array", b"{": "object", b"t": "boolean", b"f": "boolean"}.get(first, "number")


def _names(output: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, output)) or "none"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'ao' else 'a'} {kind}"
