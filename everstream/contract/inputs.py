"""Checks a request's inputs against the model's INPUT_SCHEMA before anything starts.

In: query parameters (text) or a JSON body. Out: a dict for `infer`, without the optional inputs that were not
given. Every error message names the field, the problem and what is allowed.
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
"""Per body."""
LONG_JSON_BYTES = 4096
"""A larger array or object becomes Python objects only when its expected type is known."""

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
            raise InvalidInput(f"{name} is given {len(texts)} times; only once is allowed", param=name)
        else:
            values[name] = _from_text(name, texts[0], field)
    return _checked(values, schema, max_chars)


def from_json(body: Any, schema: Schema, max_chars: int) -> dict[str, Any]:
    """Inputs from a parsed JSON body. `null` counts as absent."""
    if not isinstance(body, dict):
        raise InvalidInput("the body must be a JSON object", param="body")
    given = {name: value for name, value in body.items() if value is not None}
    values = {name: _from_value(name, value, _field(name, schema)) for name, value in given.items()}
    return _checked(values, schema, max_chars)


def example(schema: Schema) -> dict[str, Any]:
    """The schema's own examples of the required inputs, or of its first input if none is required."""
    required = [name for name, field in schema.items() if field.get("required")] or list(schema)[:1]
    return {name: schema[name]["example"] for name in required if "example" in schema[name]}


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse a request's body, which must be a JSON object. Long arrays and objects in it stay `msgspec.Raw`.

    Parsing 1 MiB of `[]` would stall the web process and all its streams for 90 ms. Raises InvalidInput.
    """
    try:
        given = _body_decoder.decode(body)
    except msgspec.ValidationError:
        raise InvalidInput("the body must be a JSON object", param="body") from None
    except _JSON_ERRORS as error:
        message = f"the body is not JSON in UTF-8, or contains half a surrogate pair: {error}"
        raise InvalidInput(message[:200], param="body") from None
    if len(given) > MAX_NAMES:
        raise InvalidInput(f"the body has {len(given)} names; at most {MAX_NAMES} are allowed", param="body")
    return {name: _parsed(name, value) for name, value in given.items()}


_JSON_ERRORS = (ValueError, RecursionError)
_body_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_array_decoder = msgspec.json.Decoder(list[str])
_number_array_decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[bool | int | float])


def _parsed(name: str, value: msgspec.Raw) -> Any:
    if len(memoryview(value)) > LONG_JSON_BYTES and bytes(memoryview(value)[:1]) in (b"[", b"{"):
        return value
    try:
        return msgspec.json.decode(value)
    except _JSON_ERRORS as error:
        raise InvalidInput(f"{name[:100]} can't be read: {error}"[:200], param=name[:100]) from None


def text_bytes(values: Mapping[str, Any]) -> int:
    """The total size of the text in the inputs, in UTF-8."""
    flat = (item for value in values.values() for item in (value if isinstance(value, list) else [value]))
    return sum(len(item.encode()) for item in flat if isinstance(item, str))


def is_text(text: str) -> bool:
    """JSON can escape half a surrogate pair, which is not a character and can't be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _field(name: str, schema: Schema) -> Mapping[str, Any]:
    if name in schema:
        return schema[name]
    closest = difflib.get_close_matches(name[:100], schema, n=1)
    hint = f"did you mean {closest[0]}? " if closest else ""
    raise InvalidInput(f"unknown parameter {_quoted(name)}; {hint}allowed: {', '.join(schema)}", param=name[:100])


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
        # In a JSON body, a field whose string holds JSON may be given as that JSON itself.
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
        raise InvalidInput(f"{name} contains an invalid string or number", param=name) from None


def _long_array(name: str, value: msgspec.Raw, field: Mapping[str, Any]) -> list[Any]:
    """Stops at the first item that can't be valid for the field."""
    kind = _kind(field["datatype"].upper())
    if not _is_array(field):
        raise InvalidInput(f"{name} must be {kind}, got an array or an object", param=name)
    try:
        decoder = _text_array_decoder if field["datatype"].upper() in _STRINGS else _number_array_decoder
        return decoder.decode(value)
    except _JSON_ERRORS as error:
        raise InvalidInput(f"{name} must be an array, each item {kind}: {error}"[:200], param=name) from None


def _typed(name: str, value: Any, field: Mapping[str, Any]) -> Any:
    datatype = field["datatype"].upper()
    if datatype in _STRINGS:
        valid = isinstance(value, str)
    elif datatype in _BOOLEANS:
        valid = isinstance(value, bool)
    elif datatype in _FLOATS:
        valid = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        valid = isinstance(value, int) and not isinstance(value, bool)
    if not valid:
        raise InvalidInput(f"{name} must be {_kind(datatype)}, got {type(value).__name__}", param=name)
    return _as_float(name, value) if datatype in _FLOATS else value


def _as_float(name: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidInput(f"{name} is too large for a floating-point number", param=name) from None


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
        raise InvalidInput(f"{name} has {len(value)} items; at most {limit} are allowed", param=name)


def _check_item(name: str, value: Any, field: Mapping[str, Any], max_chars: int) -> None:
    if isinstance(value, str):
        limit = field.get("max_length", max_chars)
        if len(value) > limit:
            raise InvalidInput(f"{name} has {len(value)} characters; at most {limit} are allowed", param=name)
        if (least := field.get("min_length", 0)) > len(value):
            needs = "must not be empty" if least == 1 else f"must have at least {least} characters"
            raise InvalidInput(f"{name} {needs}", param=name)
        if not is_text(value):
            raise InvalidInput(f"{name} contains half a surrogate pair, which is not valid text", param=name)
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
