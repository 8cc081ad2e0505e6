"""Checks a request's inputs against the model's INPUT_SCHEMA, before anything starts.

In: query parameters (text) or a JSON body. Out: a dict for `infer`, where optional inputs that were not given are
absent. Every complaint names the field, what was wrong and what is allowed.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from everstream.errors import InvalidInput

Schema = Mapping[str, Mapping[str, Any]]

MAX_NAMES = 1000
"""In a body."""
LONG_JSON_BYTES = 4096
"""An array or object of more is not made into Python objects before it is known what it has to be."""

_INTEGER = re.compile(r"(U?)INT(8|16|32|64)")
_FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_STRINGS = frozenset({"STRING", "BYTES"})
_BOOLEANS = frozenset({"BOOL", "BOOLEAN"})
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def from_query(query: Mapping[str, Sequence[str]], schema: Schema, max_chars: int) -> dict[str, Any]:
    """Inputs from query parameters; an array is given by repeating its name."""
    values: dict[str, Any] = {}
    for name, texts in query.items():
        field = _field(name, schema)
        if _is_array(field):
            values[name] = [_from_text(name, text, field) for text in texts]
        elif len(texts) > 1:
            raise InvalidInput(f"{name} is given {len(texts)} times, allowed is once", param=name)
        else:
            values[name] = _from_text(name, texts[0], field)
    return _checked(values, schema, max_chars)


def from_json(body: Any, schema: Schema, max_chars: int) -> dict[str, Any]:
    """Inputs from a parsed JSON body. `null` counts as not given."""
    if not isinstance(body, dict):
        raise InvalidInput("the body must be a JSON object", param="body")
    given = {name: value for name, value in body.items() if value is not None}
    values = {name: _from_value(name, value, _field(name, schema)) for name, value in given.items()}
    return _checked(values, schema, max_chars)


def example(schema: Schema) -> dict[str, Any]:
    """The schema's own examples of the inputs that are required; where none is, of its first one."""
    required = [name for name, field in schema.items() if field.get("required")] or list(schema)[:1]
    return {name: schema[name]["example"] for name in required if "example" in schema[name]}


def parse_body(body: bytes) -> dict[str, Any]:
    """A request's body, which must be a JSON object; long arrays and objects in it stay `msgspec.Raw`.

    1 MiB of `[]` would take the web process 90 ms to parse, and all its streams with it. Raises InvalidInput.
    """
    try:
        given = _body_decoder.decode(body)
    except msgspec.ValidationError:
        raise InvalidInput("the body must be a JSON object", param="body") from None
    except _NO_JSON as error:
        message = f"the body is not JSON in UTF-8, or holds half a surrogate pair: {error}"
        raise InvalidInput(message[:200], param="body") from None
    if len(given) > MAX_NAMES:
        raise InvalidInput(f"the body has {len(given)} names, allowed are at most {MAX_NAMES}", param="body")
    return {name: _parsed(name, value) for name, value in given.items()}


_NO_JSON = (ValueError, RecursionError)
_body_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_array_decoder = msgspec.json.Decoder(list[str])
_number_array_decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[bool | int | float])


def _parsed(name: str, value: msgspec.Raw) -> Any:
    if len(memoryview(value)) > LONG_JSON_BYTES and bytes(memoryview(value)[:1]) in (b"[", b"{"):
        return value
    try:
        return msgspec.json.decode(value)
    except _NO_JSON as error:
        raise InvalidInput(f"{name[:100]} can't be read: {error}"[:200], param=name[:100]) from None


def text_bytes(values: Mapping[str, Any]) -> int:
    """The size of all text in the inputs, in UTF-8."""
    flat = (item for value in values.values() for item in (value if isinstance(value, list) else [value]))
    return sum(len(item.encode()) for item in flat if isinstance(item, str))


def is_text(text: str) -> bool:
    """JSON can escape half a surrogate pair, which is no character and has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _field(name: str, schema: Schema) -> Mapping[str, Any]:
    if name in schema:
        return schema[name]
    near = difflib.get_close_matches(name[:100], schema, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InvalidInput(f"unknown parameter {_quoted(name)}; {hint}allowed are {', '.join(schema)}", param=name[:100])


def _is_array(field: Mapping[str, Any]) -> bool:
    return list(field.get("shape", [1])) != [1]


def _from_text(name: str, text: str, field: Mapping[str, Any]) -> Any:
    datatype = field["datatype"].upper()
    if datatype in _STRINGS:
        return text
    if datatype in _BOOLEANS:
        if text.lower() not in _TRUTH:
            raise InvalidInput(f"{name} must be true or false, got {_quoted(text)}", param=name)
        return _TRUTH[text.lower()]
    try:
        # Python's own parsers also take underscores and non-ASCII digits.
        if "_" in text or not text.isascii():
            raise ValueError
        return float(text) if datatype in _FLOATS else int(text)
    except ValueError:
        raise InvalidInput(f"{name} must be {_kind(datatype)}, got {_quoted(text)}", param=name) from None


def _from_value(name: str, value: Any, field: Mapping[str, Any]) -> Any:
    if field.get("format") == "json" and not isinstance(value, str):
        # A string that holds JSON may stand in a JSON body as what it holds.
        return _json_text(name, value)
    if isinstance(value, msgspec.Raw):
        value = _long_array(name, value, field)
    if not _is_array(field):
        return _typed(name, value, field)
    items = value if isinstance(value, list) else [value]
    _check_size(name, items, field)
    return [_typed(name, item, field) for item in items]


def _json_text(name: str, value: Any) -> str:
    try:
        return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()
    except (ValueError, OverflowError):
        raise InvalidInput(f"{name} holds what is no text or no number", param=name) from None


def _long_array(name: str, value: msgspec.Raw, field: Mapping[str, Any]) -> list[Any]:
    """Given up at the first item that can't be one of the field's."""
    kind = _kind(field["datatype"].upper())
    if not _is_array(field):
        raise InvalidInput(f"{name} must be {kind}, got an array or an object", param=name)
    try:
        decoder = _text_array_decoder if field["datatype"].upper() in _STRINGS else _number_array_decoder
        return decoder.decode(value)
    except _NO_JSON as error:
        raise InvalidInput(f"{name} must be an array, each item {kind}: {error}"[:200], param=name) from None


def _typed(name: str, value: Any, field: Mapping[str, Any]) -> Any:
    datatype = field["datatype"].upper()
    if datatype in _STRINGS:
        right = isinstance(value, str)
    elif datatype in _BOOLEANS:
        right = isinstance(value, bool)
    elif datatype in _FLOATS:
        right = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        right = isinstance(value, int) and not isinstance(value, bool)
    if not right:
        raise InvalidInput(f"{name} must be {_kind(datatype)}, got {type(value).__name__}", param=name)
    return _as_float(name, value) if datatype in _FLOATS else value


def _as_float(name: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidInput(f"{name} is beyond any floating-point number", param=name) from None


def _checked(values: dict[str, Any], schema: Schema, max_chars: int) -> dict[str, Any]:
    for name, field in schema.items():
        if name in values:
            _check_size(name, values[name], field)
            for item in values[name] if _is_array(field) else [values[name]]:
                _check_item(name, item, field, max_chars)
        elif field.get("required"):
            raise InvalidInput(f"{name} is missing", param=name)
    return values


def _check_size(name: str, value: Any, field: Mapping[str, Any]) -> None:
    if not _is_array(field):
        return
    size = math.prod(field["shape"])
    if size > 0 and len(value) != size:
        raise InvalidInput(f"{name} must have {size} items, got {len(value)}", param=name)
    limit = field.get("max_items", 1000)
    if len(value) > limit:
        raise InvalidInput(f"{name} has {len(value)} items, allowed are at most {limit}", param=name)


def _check_item(name: str, value: Any, field: Mapping[str, Any], max_chars: int) -> None:
    if isinstance(value, str):
        limit = field.get("max_length", max_chars)
        if len(value) > limit:
            raise InvalidInput(f"{name} has {len(value)} characters, allowed are at most {limit}", param=name)
        if field.get("min_length", 0) > len(value):
            raise InvalidInput(f"{name} must not be empty", param=name)
        if not is_text(value):
            raise InvalidInput(f"{name} holds half a surrogate pair, which is no text", param=name)
    elif not isinstance(value, bool):
        low, high = _bounds(field)
        if not low <= value <= high:
            raise InvalidInput(f"{name} must be from {low} to {high}, got {str(value)[:40]}", param=name)


def _bounds(field: Mapping[str, Any]) -> tuple[float, float]:
    integer = _INTEGER.fullmatch(field["datatype"].upper())
    if integer is None:
        low, high = -1.7976931348623157e308, 1.7976931348623157e308
    elif integer[1]:
        low, high = 0, 2 ** int(integer[2]) - 1
    else:
        low, high = -(2 ** (int(integer[2]) - 1)), 2 ** (int(integer[2]) - 1) - 1
    return field.get("minimum", low), field.get("maximum", high)


def _kind(datatype: str) -> str:
    if datatype in _STRINGS:
        return "a string"
    if datatype in _BOOLEANS:
        return "true or false"
    return "a number" if datatype in _FLOATS else "a whole number"


def _quoted(text: str) -> str:
    return repr(text[:40])
