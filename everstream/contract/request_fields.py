"""The fields of a model's request class as a schema, like that of INPUT_SCHEMA. Pure.

In: a pydantic class. Out: `schema.Field`s. Reads the class's own JSON Schema, so it needs no pydantic itself.
"""

import math
from collections.abc import Mapping
from typing import Any

from everstream.contract.schema import JSON, MAX_DIMENSIONS, Field
from everstream.errors import ModelLoadError

_DATATYPES = {"string": "STRING", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
_REFERENCE = "#/$defs/"

JsonSchema = Mapping[str, Any]


def fields_of(request_class: type) -> dict[str, Field]:
    """Each field by the name that the class's constructor takes. Raises ModelLoadError.

    A union, an object or a nested model has the datatype JSON, and only the class checks it.
    """
    try:
        schema: JsonSchema = request_class.model_json_schema()  # type: ignore[attr-defined]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ModelLoadError(f"the inputs of {request_class.__name__} can't be given in JSON: {reason}") from error
    definitions = schema.get("$defs", {})
    root = _resolved(schema, definitions)
    required = root.get("required", ())
    return {
        name: _field(declared, name in required, definitions) for name, declared in root.get("properties", {}).items()
    }


def _field(declared: JsonSchema, is_required: bool, definitions: JsonSchema) -> Field:
    value, may_be_null = _without_null(_resolved(declared, definitions))
    item, dimensions = _item(value, definitions)
    datatype = _DATATYPES.get(item.get("type", ""), JSON)
    common = {"required": is_required and not may_be_null, "example": _example(declared)}
    if datatype == JSON:
        return Field(JSON, **common)
    return Field(
        datatype,
        [-1] * dimensions or [1],
        minimum=_minimum(item),
        maximum=_maximum(item),
        min_length=item.get("minLength", 0),
        max_length=item.get("maxLength"),
        max_items=value.get("maxItems") if dimensions == 1 else None,
        **common,
    )


def _item(value: JsonSchema, definitions: JsonSchema) -> tuple[JsonSchema, int]:
    """What an array contains, and its number of dimensions; 0 for a single value."""
    item, dimensions = _resolved(value, definitions), 0
    while item.get("type") == "array" and "items" in item and dimensions < MAX_DIMENSIONS:
        item = _resolved(item["items"], definitions)
        dimensions += 1
    return item, dimensions


def _resolved(schema: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    if "$ref" not in schema:
        return schema
    found: JsonSchema = definitions[schema["$ref"].removeprefix(_REFERENCE)]
    return found


def _without_null(schema: JsonSchema) -> tuple[JsonSchema, bool]:
    """Optional[X] as X. Any other union stays one."""
    options = schema.get("anyOf", ())
    others = [option for option in options if option.get("type") != "null"]
    may_be_null = len(others) < len(options)
    return (others[0] if may_be_null and len(others) == 1 else schema), may_be_null


def _example(declared: JsonSchema) -> Any:
    examples = declared.get("examples") or [declared.get("example", declared.get("default"))]
    return examples[0]


def _minimum(item: JsonSchema) -> int | float | None:
    above: int | float | None = item.get("exclusiveMinimum")
    if above is None:
        return item.get("minimum")
    return math.floor(above) + 1 if item["type"] == "integer" else math.nextafter(above, math.inf)


def _maximum(item: JsonSchema) -> int | float | None:
    below: int | float | None = item.get("exclusiveMaximum")
    if below is None:
        return item.get("maximum")
    return math.ceil(below) - 1 if item["type"] == "integer" else math.nextafter(below, -math.inf)
