"""Checks a request's inputs against the model's INPUT_SCHEMA before anything starts.

In: query parameters (text) or a JSON body. Out: a dict for `infer`, without the optional inputs that were not
given. Every error message names the field, the problem and what is allowed.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from everstream.contract.schema import FLOATS, JSON, STRINGS, Field, Schema
from everstream.errors import InvalidInput

MAX_NAMES = 1000
"""Per body."""
LONG_JSON_BYTES = 4096
"""A larger array or object becomes Python objects only when its expected type is known."""
MAX_CONTAINERS = 100_000
"""Arrays and objects within one value: each takes far more memory and time than its text."""

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def from_query(query: Mapping[str, Sequence[str]], schema: Schema, max_chars: int) -> dict[str, Any]:
    """Inputs from query parameters; an array is given by repeating its name. `max_chars` limits prompts."""
    values: dict[str, Any] = {}
    for name, texts in query.items():
        field = _field(name, schema)
        if field.is_array:
            values[name] = _shaped(name, [_from_text(name, text, field) for text in texts], field)
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


def refuse_unknown(names: Iterable[str], schema: Schema) -> None:
    """Raise InvalidInput for the first input that the model does not have. For APIs with fields of their own, whose
    clients do not know the model's inputs."""
    for name in names:
        if name not in schema:
            raise InvalidInput(f"the served model does not accept {name}"[:200], param=name)


def example(schema: Schema) -> dict[str, Any]:
    """The schema's own examples of the required inputs, or of its first input if none is required."""
    required = [name for name, field in schema.items() if field.required] or list(schema)[:1]
    return {name: schema[name].example for name in required if schema[name].example is not None}


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
    return {name: parsed(name, value) for name, value in given.items()}


_JSON_ERRORS = (ValueError, RecursionError)
_body_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def parsed(name: str, value: msgspec.Raw) -> Any:
    """One value of a body. A long array or object stays as it is. Raises InvalidInput."""
    if len(memoryview(value)) > LONG_JSON_BYTES and bytes(memoryview(value)[:1]) in (b"[", b"{"):
        return value
    try:
        return msgspec.json.decode(value)
    except _JSON_ERRORS as error:
        raise InvalidInput(f"{name[:100]} can't be read: {error}"[:200], param=name[:100]) from None


def check_containers(name: str, value: msgspec.Raw) -> None:
    """Call before a value's arrays and objects become Python objects. Counts brackets in its strings too."""
    text = bytes(value)
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise InvalidInput(f"{name} has more than {MAX_CONTAINERS} arrays and objects", param=name)


def text_bytes(values: Mapping[str, Any]) -> int:
    """The total size of the text in the inputs, in UTF-8."""
    return sum(len(item.encode()) for value in values.values() for item in flat(value) if isinstance(item, str))


def is_text(text: str) -> bool:
    """JSON can escape half a surrogate pair, which is not a character and can't be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _field(name: str, schema: Schema) -> Field:
    if name in schema:
        return schema[name]
    closest = difflib.get_close_matches(name[:100], schema, n=1)
    hint = f"did you mean {closest[0]}? " if closest else ""
    allowed = f"allowed: {', '.join(schema)}" if schema else "this model takes no inputs"
    raise InvalidInput(f"unknown parameter {_quoted(name)}; {hint}{allowed}", param=name[:100])


def _from_text(name: str, text: str, field: Field) -> Any:
    if field.datatype in STRINGS:
        return text
    if field.datatype == "BOOL":
        if text.lower() not in _TRUTH:
            raise InvalidInput(f"{name} must be true or false, got {_quoted(text)}", param=name)
        return _TRUTH[text.lower()]
    if field.datatype == JSON:
        return _plain(name, msgspec.Raw(text.encode()))
    try:
        # Python's own parsers also take underscores and non-ASCII digits.
        if "_" in text or not text.isascii():
            raise ValueError
        return float(text) if field.datatype in FLOATS else int(text)
    except ValueError:
        raise InvalidInput(f"{name} must be {field.kind}, got {_quoted(text)}", param=name) from None


def _from_value(name: str, value: Any, field: Field) -> Any:
    if field.format == "json" and not isinstance(value, str):
        # In a JSON body, a field whose string holds JSON may be given as that JSON itself.
        return _json_text(name, value)
    if field.datatype == JSON:
        return _plain(name, value)
    if field.is_array:
        return _shaped(name, _array(name, value, field), field)
    if isinstance(value, list) and len(value) == 1:
        # A schema's examples wrap a single value in a list.
        value = value[0]
    return _typed(name, value, field)


def _json_text(name: str, value: Any) -> str:
    try:
        return (bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)).decode()
    except (ValueError, OverflowError):
        raise InvalidInput(f"{name} contains an invalid string or number", param=name) from None


def _plain(name: str, value: Any) -> Any:
    if not isinstance(value, msgspec.Raw):
        return value
    check_containers(name, value)
    try:
        return msgspec.json.decode(value)
    except _JSON_ERRORS as error:
        raise InvalidInput(f"{name} can't be read: {error}"[:200], param=name) from None


def _array(name: str, value: Any, field: Field) -> list[Any]:
    """A list, flat or nested as deeply as the shape. Stops at the first item that can't be valid."""
    if not isinstance(value, (list, msgspec.Raw)):
        value = [value]
    depth = len(field.shape) if _is_nested(value) else 1
    kind = _nested(_item_type(field), depth)
    try:
        if isinstance(value, msgspec.Raw):
            if depth > 1:
                check_containers(name, value)
            return cast(list[Any], msgspec.json.decode(value, type=kind))
        return cast(list[Any], msgspec.convert(value, kind))
    except _JSON_ERRORS as error:
        raise InvalidInput(f"each item of {name} must be {field.kind}: {error}"[:200], param=name) from None


def _is_nested(value: list[Any] | msgspec.Raw) -> bool:
    if isinstance(value, msgspec.Raw):
        return bytes(memoryview(value)[:64])[1:].lstrip().startswith(b"[")
    return bool(value) and isinstance(value[0], list)


def _item_type(field: Field) -> Any:
    if field.datatype in STRINGS:
        return str
    if field.datatype == "BOOL":
        return bool
    return float if field.datatype in FLOATS else int


def _nested(kind: Any, depth: int) -> Any:
    for _ in range(depth):
        kind = list[kind]
    return kind


def _shaped(name: str, items: list[Any], field: Field) -> list[Any]:
    """The items, nested as the shape says. Raises InvalidInput if they don't fit it."""
    shape = field.shape
    if items and isinstance(items[0], list):
        _check_nested(name, items, shape, str(shape))
        return items
    if shape.count(-1) > 1:
        raise InvalidInput(f"{name} must be nested like its shape {shape}", param=name)
    known = math.prod(size for size in shape if size != -1)
    if len(items) % known or (-1 not in shape and len(items) != known):
        needs = f"a multiple of {known}" if -1 in shape else str(known)
        raise InvalidInput(f"{name} must have {needs} items, got {len(items)}", param=name)
    for size in reversed(shape[1:]):
        step = len(items) // known if size == -1 else size
        items = [items[at : at + step] for at in range(0, len(items), step or 1)]
    return items


def _check_nested(name: str, items: list[Any], shape: list[int], whole: str) -> None:
    if shape[0] not in (-1, len(items)):
        raise InvalidInput(f"{name} must have the shape {whole}; a list in it has {len(items)} items", param=name)
    for item in items if len(shape) > 1 else ():
        _check_nested(name, item, shape[1:], whole)


def _typed(name: str, value: Any, field: Field) -> Any:
    if isinstance(value, msgspec.Raw):
        raise InvalidInput(f"{name} must be {field.kind}, got an array or an object", param=name)
    if field.datatype in STRINGS:
        valid = isinstance(value, str)
    elif field.datatype == "BOOL":
        valid = isinstance(value, bool)
    else:
        numbers = (int, float) if field.datatype in FLOATS else int
        valid = isinstance(value, numbers) and not isinstance(value, bool)
    if not valid:
        raise InvalidInput(f"{name} must be {field.kind}, got {type(value).__name__}", param=name)
    return _as_float(name, value) if field.datatype in FLOATS else value


def _as_float(name: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidInput(f"{name} is too large for a floating-point number", param=name) from None


def _checked(values: dict[str, Any], schema: Schema, max_chars: int) -> dict[str, Any]:
    for name, field in schema.items():
        if name in values:
            _check(name, values[name], field, max_chars)
        elif field.required:
            raise InvalidInput(f"{name} is missing", param=name)
    return values


def _check(name: str, value: Any, field: Field, max_chars: int) -> None:
    items = flat(value)
    if field.is_array and len(items) > field.most_items:
        raise InvalidInput(f"{name} has {len(items)} items; at most {field.most_items} are allowed", param=name)
    if field.datatype in STRINGS:
        for item in items:
            _check_text(name, item, field, max_chars)
    elif field.datatype not in ("BOOL", JSON):
        _check_numbers(name, items, field.bounds)


def flat(value: Any) -> list[Any]:
    """The items of a list that may be nested, or a list of the single value.

    Of JSON, whose lists may be nested unevenly, the items before the first list of a level decide.
    """
    items = value if isinstance(value, list) else [value]
    while items and isinstance(items[0], list):
        items = [each for item in items for each in (item if isinstance(item, list) else [item])]
    return items


def _check_text(name: str, value: str, field: Field, max_chars: int) -> None:
    limit = field.longest(max_chars)
    if limit is not None and len(value) > limit:
        raise InvalidInput(f"{name} has {len(value)} characters; at most {limit} are allowed", param=name)
    if field.min_length > len(value):
        needs = "must not be empty" if field.min_length == 1 else f"must have at least {field.min_length} characters"
        raise InvalidInput(f"{name} {needs}", param=name)
    if not is_text(value):
        raise InvalidInput(f"{name} contains half a surrogate pair, which is not valid text", param=name)


def _check_numbers(name: str, numbers: list[Any], bounds: tuple[float, float]) -> None:
    low, high = bounds
    # NaN fails every comparison.
    wrong = next((number for number in numbers if not low <= number <= high), None)
    if wrong is not None:
        raise InvalidInput(f"{name} must be from {low} to {high}, got {str(wrong)[:40]}", param=name)


def _quoted(text: str) -> str:
    return repr(text[:40])
