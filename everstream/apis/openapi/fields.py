"""`Fields` as JSON Schema: the object that a body may be, and a query's parameters. Pure. Called by `operation`.

Where several models are served, a body has an alternative for each, and a query has the parameters of all.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from everstream.apis.openapi.components import REFERENCE
from everstream.contract import json_schema
from everstream.contract.inlining import JsonSchema
from everstream.contract.schema import Schema
from everstream.web.description import Fields


class Properties:
    """Named values, and which of them are required."""

    def __init__(self, schemas: Mapping[str, JsonSchema], required: Sequence[str] = ()) -> None:
        self.schemas = dict(schemas)
        self.required = list(required)

    def __or__(self, others: "Properties") -> "Properties":
        """Of the same name, that of `others` counts."""
        own = [name for name in self.required if name not in others.schemas]
        return Properties(self.schemas | others.schemas, own + others.required)

    def as_object(self, **more: Any) -> JsonSchema:
        required = {"required": self.required} if self.required else {}
        return {"type": "object", "properties": self.schemas, **required, **more}


class FieldSchemas:
    """`models`: the inputs of each served model, as far as they are known, by its name."""

    def __init__(
        self,
        schemas: Mapping[Any, JsonSchema],
        components: Mapping[str, JsonSchema],
        models: Mapping[str, Schema],
        max_prompt_chars: int,
    ) -> None:
        self._schemas = schemas
        self._components = components
        self._models = models
        self._max_prompt_chars = max_prompt_chars

    def body(self, fields: Fields) -> JsonSchema:
        own, closed = self.of_structs(fields.types), {} if fields.is_open else {"additionalProperties": False}
        alternatives = [
            (own | inputs).as_object(**closed, **({"title": name} if len(self._models) > 1 else {}))
            for name, inputs in self._inputs(fields, in_query=False)
        ]
        if not alternatives:
            return own.as_object()
        return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}

    def query(self, fields: Fields) -> Properties:
        found, models = self.of_structs(fields.types), list(self._inputs(fields, in_query=True))
        for _, inputs in models:
            found |= inputs
        if len(models) > 1:
            found.required = []
        return found

    def of_structs(self, types: Sequence[type]) -> Properties:
        """Their fields."""
        found = Properties({})
        for kind in types:
            struct = self._components[self._schemas[kind]["$ref"].removeprefix(REFERENCE)]
            found |= Properties(struct["properties"], struct.get("required", ()))
        return found

    def _inputs(self, fields: Fields, *, in_query: bool) -> Iterator[tuple[str, Properties]]:
        """Those of each model that the route is for."""
        convert = json_schema.in_query if in_query else json_schema.in_body
        for name, schema in self._models.items():
            if inputs := fields.inputs(schema) if fields.inputs else {}:
                required = [name for name, field in inputs.items() if field.required]
                converted = {name: convert(field, self._max_prompt_chars) for name, field in inputs.items()}
                yield name, Properties(converted, required)
