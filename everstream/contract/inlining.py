"""A JSON Schema that a model declares, without references, so that it can be part of any document. Pure.

In: `json_schema` as the model's author wrote it. Out: the same as plain JSON of bounded size, or ValueError. Called by
`schema`, which warns the author, and by `json_schema`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MAX_BYTES = 64 << 10
MAX_DEPTH = 50
"""Of objects and arrays within each other: a document's readers are recursive."""

JsonSchema = dict[str, Any]
_REFERENCE = "#/$defs/"
_DEFINITIONS = "$defs"
_OF_DEFINITIONS = "discriminator"
"""Only names definitions."""
_OF_ONE = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_OF_SEVERAL = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_OF_NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
"""The keywords that hold schemas. Whatever the others hold is a value, which may look like a schema."""

_Several = Annotated[list["bool | Keywords"], Meta(min_length=1)]


class Keywords(Struct, rename="camel"):
    """The types of those keywords that a document's readers rely on."""

    type: str | list[str] | UnsetType = UNSET
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    pattern: str | UnsetType = UNSET
    content_media_type: str | UnsetType = UNSET
    ref: str | UnsetType = msgspec.field(default=UNSET, name="$ref")
    enum: list[Any] | UnsetType = UNSET
    examples: list[Any] | UnsetType = UNSET
    required: list[str] | UnsetType = UNSET
    minimum: float | UnsetType = UNSET
    maximum: float | UnsetType = UNSET
    min_length: int | UnsetType = UNSET
    max_length: int | UnsetType = UNSET
    min_items: int | UnsetType = UNSET
    max_items: int | UnsetType = UNSET
    items: "bool | Keywords | UnsetType" = UNSET
    additional_properties: "bool | Keywords | UnsetType" = UNSET
    any_of: _Several | UnsetType = UNSET
    one_of: _Several | UnsetType = UNSET
    all_of: _Several | UnsetType = UNSET
    properties: "dict[str, bool | Keywords] | UnsetType" = UNSET


def inlined(declared: Mapping[str, Any]) -> JsonSchema:
    """A type within itself becomes any value. Raises ValueError, which says in one line what is wrong."""
    schema = plain_json(declared)
    inlining = _Inlining(schema.pop(_DEFINITIONS, {}))
    found: JsonSchema = inlining.schema(schema, ())
    check_depth(found)
    try:
        msgspec.convert(found, Keywords)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    return found


def plain_json(value: Any) -> Any:
    """The value as it is after a round trip through JSON. Raises ValueError if it can't be, or if it is large."""
    try:
        text = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"it can't be written as JSON: {error}") from None
    if len(text) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES} bytes")
    found = msgspec.json.decode(text)
    check_depth(found)
    return found


def check_depth(value: Any) -> None:
    """Raises ValueError."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        containers = [each for each in level if isinstance(each, (dict, list))]
        level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]


class _Inlining:
    """Replaces references. Each one adds at most its definition's JSON, so the sum of those bounds the result."""

    def __init__(self, definitions: Any) -> None:
        if not isinstance(definitions, dict):
            raise ValueError(f"{_DEFINITIONS} must be an object")
        self._definitions = definitions
        self._sizes = {name: len(msgspec.json.encode(value)) for name, value in definitions.items()}
        self._bytes_left = MAX_BYTES

    def schema(self, value: Any, outer: tuple[str, ...]) -> Any:
        """`outer`: the definitions that it is part of."""
        if not isinstance(value, dict):
            return value
        if isinstance(reference := value.get("$ref"), str):
            return self._definition(reference, outer)
        return {
            keyword: self._keyword(keyword, item, outer)
            for keyword, item in value.items()
            if keyword != _OF_DEFINITIONS
        }

    def _definition(self, reference: str, outer: tuple[str, ...]) -> Any:
        name = reference.removeprefix(_REFERENCE)
        if name == reference or name not in self._definitions:
            raise ValueError(f"unknown $ref {reference[:100]!r}; only {_REFERENCE}… within the schema are known")
        if name in outer:
            return {}
        self._bytes_left -= self._sizes[name]
        if self._bytes_left < 0 or len(outer) > MAX_DEPTH:
            raise ValueError(f"with its references replaced, it has more than {MAX_BYTES} bytes or is nested too deep")
        return self.schema(self._definitions[name], (*outer, name))

    def _keyword(self, keyword: str, value: Any, outer: tuple[str, ...]) -> Any:
        if keyword in _OF_ONE:
            return self.schema(value, outer)
        if keyword in _OF_SEVERAL and isinstance(value, list):
            return [self.schema(item, outer) for item in value]
        if keyword in _OF_NAMED and isinstance(value, dict):
            return {name: self.schema(item, outer) for name, item in value.items()}
        return value
