"""A model's outputs as tensors of the Open Inference Protocol, or as text. Pure.

| an output's value | datatype | shape |
|---|---|---|
| string, boolean | BYTES, BOOL | [1] |
| integer | INT64; UINT64 above that | [1] |
| another number | FP64 | [1] |
| array of one of these kinds, nested or not | that of its items; integers beside other numbers are FP64 | its own |
| null, object, any other array or integer | BYTES: its JSON text | [1] |
| empty array | BYTES | its own |
"""

from itertools import chain
from typing import Any

import msgspec

from everstream.log.entries import encode_json, text_literal

Tensor = dict[str, Any]

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_KINDS: tuple[tuple[Any, str], ...] = ((int, ""), (float, "FP64"), (bool, "BOOL"), (str, "BYTES"))
"""In this order, because integers are numbers too."""
_MAX_DEPTH = 8


def tensors(output: bytes, wanted: tuple[str, ...] = ()) -> list[Tensor]:
    """One for each key of the output, or for each of `wanted` that it has."""
    fields = _fields.decode(output)
    return [_tensor(name, value) for name, value in fields.items() if not wanted or name in wanted]


def response(head: bytes, output: bytes, wanted: tuple[str, ...]) -> bytes:
    """A response with one output's tensors. `head`: an object's JSON without its closing brace."""
    return head + b',"outputs":' + encode_json(tensors(output, wanted)) + b"}"


def text(output: bytes) -> bytes:
    """The output's `text`, or else its first string, as a JSON string."""
    if literal := text_literal(output):
        return literal
    values = (bytes(value) for value in _fields.decode(output).values())
    return next((value for value in values if value.startswith(b'"')), b'""')


def _tensor(name: str, value: msgspec.Raw) -> Tensor:
    if bytes(memoryview(value)[:1]) == b"[":
        return _array(name, value) or _json_text(name, value)
    for kind, datatype in _KINDS:
        try:
            item = msgspec.json.decode(value, type=kind)
        except msgspec.ValidationError:
            continue
        found = datatype or _integer_type([item])
        return _described(name, [1], found, [value]) if found else _json_text(name, value)
    return _json_text(name, value)


def _array(name: str, value: msgspec.Raw) -> Tensor | None:
    """None: its items have different kinds or lengths, or can't be in a tensor."""
    start = bytes(memoryview(value)[:1024])
    depth = len(start) - len(start.lstrip(b"["))
    if depth > _MAX_DEPTH:
        return None
    for kind, datatype in _KINDS:
        nested: Any = kind
        for _ in range(depth):
            nested = list[nested]
        try:
            items: list[Any] = msgspec.json.decode(value, type=nested)
        except msgspec.ValidationError:
            continue
        shape = [len(items)]
        for _ in range(depth - 1):
            lengths = {len(each) for each in items}
            if len(lengths) != 1:
                return None
            shape.append(lengths.pop())
            items = list(chain.from_iterable(items))
        found = (datatype or _integer_type(items)) if items else "BYTES"
        return _described(name, shape, found, items) if found else None
    return None


def _integer_type(items: list[int]) -> str:
    """Empty: no type has them all."""
    low, high = min(items), max(items)
    if low in _INT64 and high in _INT64:
        return "INT64"
    return "UINT64" if low in _UINT64 and high in _UINT64 else ""


def _json_text(name: str, value: msgspec.Raw) -> Tensor:
    return _described(name, [1], "BYTES", [bytes(value).decode()])


def _described(name: str, shape: list[int], datatype: str, data: list[Any]) -> Tensor:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}
