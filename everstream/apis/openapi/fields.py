"""`Fields` as JSON Schema: the object that a body may be, and a query's parameters. Pure. Called by `operation`.

Where several models are served, a body has an alternative for each, and a query has the parameters of all.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from everstream.apis.openapi.components import REFERENCE
from everstream.contract import json_schema
from everstream.contract.inlining import JsonSchema
from everstream.contract.schema import Schema
from everstream.web.description import Fields


class ModelInputs(NamedTuple):
    """`by_model`: the inputs of each served model by its name; None: they are not known yet. `has_several`: a request
    may name its model, so that `model` is never a model's input."""

    by_model: Mapping[str, Schema | None]
    has_several: bool
    max_prompt_chars: int


class Properties:
    """Named values, and which of them are required."""

    def __init__(self, schemas: Mapping[str, JsonSchema], required: Sequence[str] = ()) -> None:
        self.schemas = dict(schemas)
        self.required = [name for name in required if name in self.schemas]

    def __or__(self, others: "Properties") -> "Properties":
        """On a name clash, `others` wins."""
        kept = self.without(others.schemas)
        return Properties(kept.schemas | others.schemas, kept.required + others.required)

    def without(self, names: Collection[str]) -> "Properties":
        kept = {name: schema for name, schema in self.schemas.items() if name not in names}
        return Properties(kept, self.required)

    def as_object(self, **more: Any) -> JsonSchema:
        required = {"required": self.required} if self.required else {}
        return {"type": "object", "properties": self.schemas, **required, **more}


class FieldSchemas:
    """`schemas` and `components`: those of an API's types, as `components.schemas_of` makes them."""

    def __init__(
        self, schemas: Mapping[Any, JsonSchema], components: Mapping[str, JsonSchema], inputs: ModelInputs
    ) -> None:
        self._schemas = schemas
        self._components = components
        self._inputs = inputs

    def body(self, fields: Fields) -> JsonSchema:
        """Open while a model's inputs are not known."""
        own, closed = self.of_structs(fields.types), {} if fields.is_open else {"additionalProperties": False}
        alternatives = [
            self._with_inputs(own, fields, inputs or Properties({})).as_object(
                **({} if inputs is None else closed), **({"title": name} if len(self._inputs.by_model) > 1 else {})
            )
            for name, inputs in self._of_models(fields, in_query=False)
        ]
        if not alternatives:
            return own.as_object(**closed)
        return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}

    def query(self, fields: Fields) -> Properties:
        found, models = self.of_structs(fields.types), list(self._of_models(fields, in_query=True))
        for _, inputs in models:
            found = self._with_inputs(found, fields, inputs or Properties({}))
        # What one model needs, another may not have.
        return found if len(models) < 2 else Properties(found.schemas)

    def of_structs(self, types: Sequence[type]) -> Properties:
        """Their fields."""
        found = Properties({})
        for kind in types:
            struct = self._components[self._schemas[kind]["$ref"].removeprefix(REFERENCE)]
            found |= Properties(struct["properties"], struct.get("required", ()))
        return found

    def _with_inputs(self, own: Properties, fields: Fields, inputs: Properties) -> Properties:
        """On a name clash, the route's own field is what a request means, except for `fields.yielding`."""
        yielding = [] if self._inputs.has_several else [name for name in fields.yielding if name in inputs.schemas]
        own = own.without(yielding)
        return own | inputs.without(own.schemas)

    def _of_models(self, fields: Fields, *, in_query: bool) -> Iterator[tuple[str, Properties | None]]:
        """Those inputs that the route takes of each model that it is for; None: they are not known yet."""
        if fields.inputs is None:
            return
        for name, schema in self._inputs.by_model.items():
            if schema is None:
                yield name, None
            elif (inputs := fields.inputs(schema)) is not None:
                yield name, self._converted(inputs, in_query=in_query)

    def _converted(self, inputs: Schema, *, in_query: bool) -> Properties:
        convert = json_schema.in_query if in_query else json_schema.in_body
        schemas = {name: convert(field, self._inputs.max_prompt_chars) for name, field in inputs.items()}
        return Properties(schemas, [name for name, field in inputs.items() if field.required])
