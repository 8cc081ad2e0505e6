"""A model's declared inputs as JSON Schema: what `inputs` takes for each. Pure.

In: a `Field`. Out: the schema of its value in a JSON body, or as the text of a query parameter. A single value in a
list of one is taken too, but not shown.
"""

import math
from typing import Any

import msgspec

from everstream.contract.schema import INTEGERS, JSON, STRINGS, Field

JsonSchema = dict[str, Any]

_REFERENCE = "#/$defs/"
_JSON_TEXT = {"type": "string", "contentMediaType": "application/json"}


def in_body(field: Field, max_prompt_chars: int) -> JsonSchema:
    """Null counts as absent."""
    if field.format == "json":
        # A string is taken for JSON text.
        schema = {"anyOf": [inlined(field.json_schema or {}), dict(_JSON_TEXT)]}
    else:
        schema = _value(field, max_prompt_chars)
    return _with_example(field, schema if field.required else _or_null(schema))


def in_query(field: Field, max_prompt_chars: int) -> JsonSchema:
    """An array is given by repeating its name."""
    if field.format == "json" or field.datatype == JSON:
        return dict(_JSON_TEXT)
    return _array(field, _item(field, max_prompt_chars), 1) if field.is_array else _item(field, max_prompt_chars)


def inlined(schema: JsonSchema) -> JsonSchema:
    """Without references, so that it can be part of any document. A type within itself becomes any value."""
    definitions = schema.get("$defs", {})
    plain: JsonSchema = _inlined({name: value for name, value in schema.items() if name != "$defs"}, definitions, ())
    return plain


def _inlined(value: Any, definitions: JsonSchema, outer: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_inlined(item, definitions, outer) for item in value]
    if not isinstance(value, dict):
        return value
    name = value["$ref"].removeprefix(_REFERENCE) if isinstance(value.get("$ref"), str) else ""
    if name:
        return {} if name in outer else _inlined(definitions[name], definitions, (*outer, name))
    return {key: _inlined(item, definitions, outer) for key, item in value.items()}


def _value(field: Field, max_prompt_chars: int) -> JsonSchema:
    if field.datatype == JSON:
        return inlined(field.json_schema or {})
    item = _item(field, max_prompt_chars)
    if not field.is_array:
        return item
    array = _array(field, item, len(field.shape))
    return {"anyOf": [array, item]} if field.shape == [-1] else array


def _item(field: Field, max_prompt_chars: int) -> JsonSchema:
    if field.datatype in STRINGS:
        longest = max_prompt_chars if field.max_length is None and field.is_prompt else field.max_length
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


def _array(field: Field, item: JsonSchema, dimensions: int) -> JsonSchema:
    """Nested in as many dimensions."""
    schema = item
    sizes = field.shape if dimensions == len(field.shape) else [-1]
    for size in reversed(sizes):
        schema = {"type": "array", "items": schema}
        if size != -1:
            schema |= {"minItems": size, "maxItems": size}
    if sizes == [-1]:
        schema["maxItems"] = field.most_items
        known = math.prod(size for size in field.shape if size != -1)
        if -1 not in field.shape:
            schema |= {"minItems": known, "maxItems": known}
    return schema


def _or_null(schema: JsonSchema) -> JsonSchema:
    if not schema:
        return schema
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _with_example(field: Field, schema: JsonSchema) -> JsonSchema:
    return schema if field.example is None else {**schema, "examples": [_example(field)]}


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
        except msgspec.DecodeError:
            return value
    return value
