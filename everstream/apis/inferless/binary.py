"""Triton's binary tensor data extension: tensors' bytes after a request's JSON. Pure.

Elements are little-endian, in row-major order, without padding. A BYTES element is a length of 4 bytes and that many
bytes. Without numpy, which web processes don't load.
"""

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import Any

from everstream.errors import InvalidInput

HEADER = "Inference-Header-Content-Length"
_TYPE_CODES = {
    "INT8": "b",
    "UINT8": "B",
    "INT16": "h",
    "UINT16": "H",
    "INT32": "i",
    "UINT32": "I",
    "INT64": "q",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
    "BF16": "H",
}
_FP16 = struct.Struct("<e")


def split(body: bytes, json_size: str) -> tuple[bytes, memoryview]:
    """The JSON and the tensors' data, by the header's value. Raises InvalidInput."""
    if not (json_size.isascii() and json_size.isdecimal() and len(json_size) <= 10 and int(json_size) <= len(body)):
        raise InvalidInput(
            f"{HEADER} must be the size of the JSON, at most the body's {len(body)} bytes; got {json_size[:40]!r}",
            param=HEADER,
        )
    return body[: int(json_size)], memoryview(body)[int(json_size) :]


class TensorData:
    """Hands out the data of one tensor after the other."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, name: str, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            left = len(self._data) - self._at
            raise InvalidInput(
                f"binary_data_size of {name[:100]} is {size}, but {left} bytes are left", param=name[:100]
            )
        taken = bytes(self._data[self._at : end])
        self._at = end
        return taken

    def end(self) -> None:
        """Raises InvalidInput if there is more than the tensors take."""
        if left := len(self._data) - self._at:
            raise InvalidInput(f"the body has {left} bytes more than its tensors' binary_data_size", param="inputs")


def items(name: str, datatype: str, data: bytes, count: int) -> list[Any]:
    """The tensor's elements. Raises InvalidInput if there are not `count`, or they can't be read."""
    if datatype == "BYTES":
        found = list(_texts(name, data, count))
        if len(found) != count:
            raise InvalidInput(f"{name} has {len(found)} elements, but its shape needs {count}", param=name)
        return found
    width = _width(datatype)
    if len(data) != count * width:
        raise InvalidInput(
            f"{name} has {len(data)} bytes of data, but its shape needs {count} elements of {width}", param=name
        )
    if datatype == "BOOL":
        return _booleans(name, data)
    if datatype == "FP16":
        return [value for (value,) in _FP16.iter_unpack(data)]
    numbers = _numbers(_TYPE_CODES[datatype], data)
    return _widened(numbers) if datatype == "BF16" else list(numbers)


def _width(datatype: str) -> int:
    if datatype in ("BOOL", "FP16"):
        return 1 if datatype == "BOOL" else 2
    return array(_TYPE_CODES[datatype]).itemsize


def _numbers(code: str, data: bytes) -> "array[Any]":
    numbers = array(code, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _widened(numbers: "array[int]") -> list[float]:
    """A bfloat16 is the upper half of a 32-bit float."""
    wide = array("I", (number << 16 for number in numbers))
    return list(array("f", wide.tobytes()))


def _booleans(name: str, data: bytes) -> list[bool]:
    if data.strip(b"\0\1"):
        raise InvalidInput(f"each element of {name} must be a byte of 0 or 1", param=name)
    return [byte == 1 for byte in data]


def _texts(name: str, data: bytes, count: int) -> Iterator[str]:
    """Stops after one element more than `count`."""
    at = 0
    while at < len(data) and count >= 0:
        start = at + 4
        size = int.from_bytes(data[at:start], "little")
        at = start + size
        if at > len(data):
            raise InvalidInput(f"an element of {name} is longer than the data", param=name)
        try:
            yield data[start:at].decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"{name} must be text in UTF-8", param=name) from None
        count -= 1
