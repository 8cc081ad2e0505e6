"""A model's declared inputs: INPUT_SCHEMA, checked when the model is loaded. Pure.

In: the dict as a model's author wrote it. Out: a `Schema`, which `inputs` checks requests against, and which an engine
can publish as JSON. The datatypes are those of KServe's Open Inference Protocol, besides STRING, BOOLEAN, and the short
forms INT and FLOAT that people write.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from everstream.contract.inlining import inlined
from everstream.errors import ModelLoadError

MAX_ITEMS = 1000
"""Of an array of strings, unless the schema says otherwise."""
MAX_NUMBERS = 1 << 18
"""The same for numbers, which are cheap to check."""
MAX_DIMENSIONS = 8
"""Of a tensor, and of a request class's field: a recursive type is nested without end."""

JSON = "JSON"
"""Our own datatype: any JSON value. For the fields of a request class that are objects."""
STRINGS = frozenset({"STRING", "BYTES"})
FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
INTEGERS = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_SYNONYMS = {"BOOLEAN": "BOOL", "INT": "INT64", "FLOAT": "FP32"}
DATATYPES = ("STRING", "BOOL", *sorted(INTEGERS), *sorted(FLOATS), "BYTES", JSON)
_INTEGER = re.compile(r"(U?)INT(8|16|32|64)")
_MAX_FLOAT = 1.7976931348623157e308


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input. `shape` [1] is a single value, anything else an array; -1 is a dimension of any length.

    `format` "json": the string holds JSON. `json_schema` describes that JSON, or a value of the datatype JSON.
    `is_prompt`: text that the model tokenizes, limited to EVERSTREAM_MAX_PROMPT_CHARS. `model_checks`: only the model
    knows which values it takes.
    """

    # The docstring is part of /openapi.json. The fields from `minimum` on are our additions to the contract.
    # `json_schema` is shown, not checked. Where `model_checks`, the model's `check` has to accept the value before the
    # request is queued, unless the response can wait for the model's refusal.
    datatype: str
    shape: list[int] = msgspec.field(default_factory=lambda: [1])
    required: bool = False
    example: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int = 0
    max_length: int | None = None
    max_items: int | None = None
    format: str = ""
    json_schema: dict[str, Any] | None = None
    is_prompt: bool = False
    model_checks: bool = False

    @property
    def is_array(self) -> bool:
        return self.shape != [1]

    @property
    def wire_datatype(self) -> str:
        """That of the Open Inference Protocol."""
        return "BYTES" if self.datatype in STRINGS or self.datatype == JSON else self.datatype

    @property
    def kind(self) -> str:
        """What one value must be, in words."""
        if self.datatype in STRINGS:
            return "a string"
        if self.datatype == "BOOL":
            return "true or false"
        if self.datatype == JSON:
            return "JSON"
        return "a number" if self.datatype in FLOATS else "a whole number"

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a number."""
        low, high = bounds_of(self.datatype)
        return low if self.minimum is None else self.minimum, high if self.maximum is None else self.maximum

    @property
    def most_items(self) -> int:
        if self.max_items is not None:
            return self.max_items
        return MAX_ITEMS if self.datatype in STRINGS else MAX_NUMBERS

    def longest(self, max_prompt_chars: int) -> int | None:
        """How many characters a string may have; None: any number."""
        return max_prompt_chars if self.max_length is None and self.is_prompt else self.max_length


Schema = Mapping[str, Field]


def parse_schema(declared: Any, warnings: list[str]) -> dict[str, Field]:
    """Check INPUT_SCHEMA. Appends to `warnings`; raises ModelLoadError with the field and what is allowed."""
    if not isinstance(declared, dict):
        raise ModelLoadError(f"INPUT_SCHEMA must be a dict, not {type(declared).__name__}")
    return {name: _parse_field(name, field, warnings) for name, field in declared.items()}


def normalised(datatype: str) -> str:
    """In the words of `DATATYPES`, if it is known."""
    name = datatype.upper()
    return _SYNONYMS.get(name, name)


def bounds_of(datatype: str) -> tuple[float, float]:
    integer = _INTEGER.fullmatch(datatype)
    if integer is None:
        return -_MAX_FLOAT, _MAX_FLOAT
    if integer[1]:
        return 0, 2 ** int(integer[2]) - 1
    return -(2 ** (int(integer[2]) - 1)), 2 ** (int(integer[2]) - 1) - 1


def _parse_field(name: Any, declared: Any, warnings: list[str]) -> Field:
    where = f"INPUT_SCHEMA[{name!r}]"
    if not isinstance(name, str) or not name:
        raise ModelLoadError(f"{where}: an input's name must be a string that is not empty")
    if not isinstance(declared, dict):
        raise ModelLoadError(f"{where} must be a dict, not {type(declared).__name__}")
    known = {key: value for key, value in declared.items() if key in Field.__struct_fields__}
    if unknown := [str(key) for key in declared if key not in known]:
        warnings.append(
            f"{where}: unknown key {', '.join(unknown)} is ignored; known keys: {', '.join(Field.__struct_fields__)}"
        )
    known["datatype"] = _datatype(where, declared.get("datatype"))
    known["shape"] = _shape(where, declared.get("shape", [1]))
    try:
        field = msgspec.convert(known, Field)
    except msgspec.ValidationError as error:
        raise ModelLoadError(f"{where}: {error}") from None
    if field.json_schema is not None:
        _warn_unless_shown(where, field.json_schema, warnings)
    return _as_its_example(where, field, warnings)


def _warn_unless_shown(where: str, json_schema: dict[str, Any], warnings: list[str]) -> None:
    try:
        inlined(json_schema)
    except ValueError as error:
        warnings.append(f"{where}: json_schema can't be shown, so any JSON is: {error}")


def _datatype(where: str, declared: Any) -> str:
    if declared is None:
        raise ModelLoadError(f"{where} has no datatype; allowed are {', '.join(DATATYPES)}")
    name = normalised(str(declared))
    if name not in DATATYPES:
        closest = difflib.get_close_matches(name, DATATYPES, n=1)
        hint = f"did you mean {closest[0]}? " if closest else ""
        raise ModelLoadError(f"{where}: unknown datatype {declared!r}; {hint}allowed are {', '.join(DATATYPES)}")
    return name


def _shape(where: str, declared: Any) -> list[int]:
    shape = [declared] if isinstance(declared, int) else declared
    is_valid = isinstance(shape, (list, tuple)) and all(
        isinstance(size, int) and not isinstance(size, bool) and (size == -1 or size > 0) for size in shape
    )
    if not is_valid:
        raise ModelLoadError(f"{where}: shape must be a list of positive whole numbers or -1, got {declared!r}")
    return list(shape) or [1]


def _as_its_example(where: str, field: Field, warnings: list[str]) -> Field:
    """Widen a number's datatype so that it covers the schema's own example: public models declare a width of 768 as
    INT8."""
    numbers = [
        value for value in _flat(field.example) if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    low, high = bounds_of(field.datatype)
    if field.datatype not in INTEGERS or all(isinstance(n, int) and low <= n <= high for n in numbers):
        return field
    wider = "FP64" if any(isinstance(number, float) for number in numbers) else "INT64"
    warnings.append(f"{where}: {field.datatype} does not cover the example {field.example!r}; taken as {wider}")
    return msgspec.structs.replace(field, datatype=wider)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value
