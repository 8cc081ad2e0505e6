"""A model's declared inputs as JSON Schema: what `inputs` takes for each. Pure.

In: a `Field`. Out: the schema of its value in a JSON body, or as the text of a query parameter. `inputs` takes
more than is shown: a single value in a list of one, and a flat list for a shape like [-1, 2], because a schema can't
say that its length is a multiple of 2.
"""

import math
from typing import Any

import msgspec

from everstream.contract.inlining import JsonSchema, inlined, plain_json
from everstream.contract.schema import INTEGERS, JSON, MAX_DIMENSIONS, STRINGS, Field

_JSON_TEXT = {"type": "string", "contentMediaType": "application/json"}


def in_body(field: Field, max_prompt_chars: int) -> JsonSchema:
    """Null counts as absent."""
    if field.format == "json":
        # A string is taken for JSON text.
        schema = {"anyOf": [_declared(field), dict(_JSON_TEXT)]}
    else:
        schema = _value(field, max_prompt_chars)
    return _with_example(field, schema if field.required else _or_null(schema))


def in_query(field: Field, max_prompt_chars: int) -> JsonSchema:
    """An array is given by repeating its name."""
    if field.format == "json" or field.datatype == JSON:
        return dict(_JSON_TEXT)
    return _flat(field, _item(field, max_prompt_chars)) if field.is_array else _item(field, max_prompt_chars)


def _declared(field: Field) -> JsonSchema:
    """Any JSON, if the declared schema can't be shown. `schema.parse_schema` has warned the author."""
    try:
        return inlined(field.json_schema or {})
    except ValueError:
        return {}


def _value(field: Field, max_prompt_chars: int) -> JsonSchema:
    if field.datatype == JSON:
        return _declared(field)
    item = _item(field, max_prompt_chars)
    if not field.is_array:
        return item
    options = [*_arrays(field, item), *([item] if _takes_one_item(field) else [])]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _item(field: Field, max_prompt_chars: int) -> JsonSchema:
    if field.datatype in STRINGS:
        longest = field.longest(max_prompt_chars)
        return {
            "type": "string",
            **({"minLength": field.min_length} if field.min_length else {}),
            **({} if longest is None else {"maxLength": longest}),
        }
    if field.datatype == "BOOL":
        return {"type": "boolean"}
    return _number(field)


def _number(field: Field) -> JsonSchema:
    low, high = field.bounds
    if field.datatype in INTEGERS:
        return {"type": "integer", "minimum": low, "maximum": high}
    bounds = {"minimum": field.minimum, "maximum": field.maximum}
    return {"type": "number"} | {name: bound for name, bound in bounds.items() if bound is not None}


def _arrays(field: Field, item: JsonSchema) -> list[JsonSchema]:
    """The array, and if its shape has several dimensions, the flat list that stands for it."""
    if len(field.shape) > MAX_DIMENSIONS:
        return [{"type": "array"}]
    if len(field.shape) == 1:
        return [_flat(field, item)]
    has_simple_length = -1 not in field.shape or _takes_one_item(field)
    return [_nested(field, item), *([_flat(field, item)] if has_simple_length else [])]


def _nested(field: Field, item: JsonSchema) -> JsonSchema:
    """An array of arrays, like the shape."""
    unknown, schema = field.shape.count(-1), item
    for size in reversed(field.shape):
        bounds = {"minItems": size, "maxItems": size} if size != -1 else {}
        if size == -1 and unknown == 1:
            bounds = {"maxItems": field.most_items // _known_items(field)}
        schema = {"type": "array", "items": schema, **bounds}
    # With several unknown dimensions, no flat list is taken, not even an empty one.
    return schema if unknown < 2 or "minItems" in schema else {**schema, "minItems": 1}


def _flat(field: Field, item: JsonSchema) -> JsonSchema:
    if -1 in field.shape:
        return {"type": "array", "items": item, "maxItems": field.most_items}
    known = _known_items(field)
    return {"type": "array", "items": item, "minItems": known, "maxItems": known}


def _takes_one_item(field: Field) -> bool:
    return field.shape.count(-1) < 2 and _known_items(field) == 1


def _known_items(field: Field) -> int:
    return math.prod(size for size in field.shape if size != -1)


def _or_null(schema: JsonSchema) -> JsonSchema:
    if not schema:
        return schema
    options = schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]
    return {"anyOf": [*options, {"type": "null"}]}


def _with_example(field: Field, schema: JsonSchema) -> JsonSchema:
    if field.example is None:
        return schema
    try:
        return {**schema, "examples": [plain_json(_example(field))]}
    except ValueError:
        # It is too large to be shown.
        return schema


def _example(field: Field) -> Any:
    """As the value itself: declared examples of single values are often in a list."""
    example = field.example
    if field.datatype == JSON:
        return example
    if field.is_array:
        return example if isinstance(example, list) else [example]
    value = example[0] if isinstance(example, list) and len(example) == 1 else example
    if field.format == "json" and isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value
