"""Tensors of the Open Inference Protocol: a request's input tensors as a model's inputs. Pure.

`data` is flat or nested, in row-major order, or binary (`binary`). Called by `requests`.
"""

import math
from typing import Annotated, Any

import msgspec

from everstream.apis.inferless import binary
from everstream.apis.inferless.nesting import depth_of, flattened, nested
from everstream.contract.inputs import check_containers
from everstream.contract.schema import FLOATS, INTEGERS, JSON, MAX_DIMENSIONS, STRINGS, Field, normalised
from everstream.errors import InvalidInput
from everstream.web.description import REQUIRED, raw_field

MAX_SIZE = 2**63 - 1


class TensorParameters(msgspec.Struct, frozen=True):
    """`binary_data_size`: how many bytes after the request's JSON are this tensor's data."""

    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class InputTensor(msgspec.Struct, frozen=True):
    """One of the model's inputs, by its name. `data` may be missing only if there is a `binary_data_size`."""

    name: str
    datatype: Annotated[str, REQUIRED] = ""
    shape: Annotated[list[int] | None, REQUIRED] = None
    data: Annotated[
        msgspec.Raw,
        msgspec.Meta(
            description="flat, or nested like the shape, in row-major order", extra_json_schema={"type": "array"}
        ),
    ] = raw_field()
    parameters: TensorParameters | None = None

    @property
    def binary_size(self) -> int | None:
        return self.parameters.binary_data_size if self.parameters else None


def input_value(tensor: InputTensor, field: Field, binary_data: bytes | None) -> Any:
    """The tensor's value, for `contract.inputs`. None: absent. Raises InvalidInput, which names the input."""
    name, shape, datatype = tensor.name, _checked_shape(tensor), _checked_datatype(tensor, field)
    count = math.prod(shape)
    is_single = field.datatype == JSON or not field.is_array
    if is_single and count != 1:
        raise InvalidInput(f"{name} takes one value, so its shape must be [1]; got {_short(shape)}", param=name)
    if count > field.most_items:
        raise InvalidInput(f"{name} has {count} items; at most {field.most_items} are allowed", param=name)
    if binary_data is not None:
        items = binary.items(name, datatype, binary_data, count)
    else:
        items = _json_items(tensor, _item_type(field, datatype), shape)
    if field.datatype == "BOOL" and datatype != "BOOL":
        items = [_truth(name, item) for item in items]
    if not is_single:
        return _arranged(tensor, items, field)
    if field.datatype == JSON and items[0] is not None:
        return msgspec.Raw(items[0].encode())
    return items[0]


def _checked_shape(tensor: InputTensor) -> list[int]:
    name, shape = tensor.name, tensor.shape
    if shape is None:
        raise InvalidInput(f"{name} has no shape", param=name)
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInput(f"{name} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are allowed", param=name)
    if not all(0 <= size <= MAX_SIZE for size in shape):
        raise InvalidInput(f"each dimension of {name} must be from 0 to {MAX_SIZE}, got {_short(shape)}", param=name)
    return shape


def _checked_datatype(tensor: InputTensor, field: Field) -> str:
    """The tensor's datatype in the protocol's own words, if the field can take it."""
    name, given = tensor.name, normalised(tensor.datatype)
    if not given:
        raise InvalidInput(f"{name} has no datatype", param=name)
    datatype = "BYTES" if given in STRINGS else given
    allowed = _allowed_datatypes(field)
    if datatype not in allowed:
        raise InvalidInput(
            f"{name} has the datatype {tensor.datatype[:40]!r}; allowed are {', '.join(allowed)}", param=name
        )
    return datatype


def _allowed_datatypes(field: Field) -> tuple[str, ...]:
    if field.wire_datatype == "BYTES":
        return ("BYTES",)
    if field.datatype == "BOOL":
        # Inferless's client sends Python's booleans as INT32.
        return ("BOOL", *sorted(INTEGERS))
    integers = tuple(sorted(INTEGERS))
    return (*sorted(FLOATS), *integers) if field.datatype in FLOATS else integers


def _item_type(field: Field, datatype: str) -> Any:
    if datatype == "BYTES":
        kind: Any = str
    elif field.datatype == "BOOL":
        kind = bool if datatype == "BOOL" else bool | int
    else:
        kind = int if datatype in INTEGERS else float
    # Inferless's client sends null for an input that is not given.
    return kind if field.is_array else kind | None


def _json_items(tensor: InputTensor, kind: Any, shape: list[int]) -> list[Any]:
    name, depth = tensor.name, depth_of(tensor.data)
    if depth == 0:
        raise InvalidInput(f"{name} needs data, an array", param=name)
    if depth > MAX_DIMENSIONS:
        raise InvalidInput(f"data of {name} is nested more than {MAX_DIMENSIONS} deep", param=name)
    if depth > 1:
        check_containers(name, tensor.data)
    try:
        arrays: list[Any] = msgspec.json.decode(tensor.data, type=nested(kind, depth))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"data of {name} does not fit its datatype: {error}"[:200], param=name) from None
    items, actual = flattened(arrays, depth)
    if depth > 1 and actual != shape:
        raise InvalidInput(f"data of {name} is nested differently than its shape {_short(shape)}", param=name)
    if len(items) != math.prod(shape):
        raise InvalidInput(f"data of {name} has {len(items)} items, but its shape is {_short(shape)}", param=name)
    return items


def _truth(name: str, item: Any) -> bool | None:
    if item is None or item in (0, 1):
        return None if item is None else bool(item)
    raise InvalidInput(f"{name} must be true or false, got {str(item)[:40]}", param=name)


def _arranged(tensor: InputTensor, items: list[Any], field: Field) -> list[Any]:
    """The items nested by the tensor's shape, or flat if the declared one has more dimensions.

    A client may send a batch of one: one more dimension of 1 in front.
    """
    shape, dimensions = tensor.shape or [], len(field.shape)
    while len(shape) > dimensions and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > dimensions:
        raise InvalidInput(f"{tensor.name} must have the shape {field.shape}, got {_short(shape)}", param=tensor.name)
    if len(shape) == dimensions and items:
        for size in reversed(shape[1:]):
            items = [items[at : at + size] for at in range(0, len(items), size)]
    return items


def _short(shape: list[int]) -> str:
    return str(shape)[:100]
