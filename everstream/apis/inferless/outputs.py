"""A model's outputs as tensors of the Open Inference Protocol, or as text. Pure.

| an output's value | datatype | shape |
|---|---|---|
| string, boolean | BYTES, BOOL | [1] |
| integer | INT64; UINT64 above that | [1] |
| another number | FP64 | [1] |
| array of one of these kinds, nested or not | that of its items; integers beside other numbers are FP64 | its own |
| null, object, any other array or integer | BYTES: its JSON text | [1] |
| array of more than `MAX_ARRAYS` arrays | the same | [1] |
| empty array | BYTES | its own |
"""

from typing import Any, NotRequired, TypedDict

import msgspec

from everstream.apis.inferless.nesting import depth_of, flattened, nested
from everstream.contract.schema import MAX_DIMENSIONS
from everstream.log.entries import encode_json, text_literal


class TensorParameters(TypedDict):
    event_id: str


class Tensor(TypedDict):
    """`data` is flat, in row-major order. `parameters`: if there are several outputs."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: NotRequired[TensorParameters]


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_KINDS: tuple[tuple[Any, str], ...] = ((int, ""), (float, "FP64"), (bool, "BOOL"), (str, "BYTES"))
"""In this order, because integers are numbers too."""
MAX_ARRAYS = 20_000
"""In one value. To decode them holds up all streams of the web process, here for about 6 ms."""


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
    """None: its items have different kinds or lengths, can't be in a tensor, or are too many arrays."""
    depth = depth_of(value)
    if depth > MAX_DIMENSIONS or (depth > 1 and bytes(value).count(b"[") > MAX_ARRAYS):
        return None
    for kind, datatype in _KINDS:
        try:
            arrays: list[Any] = msgspec.json.decode(value, type=nested(kind, depth))
        except msgspec.ValidationError:
            continue
        items, shape = flattened(arrays, depth)
        if -1 in shape:
            return None
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
