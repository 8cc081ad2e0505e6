"""The schemas of one API's types, by msgspec's own generator. Pure. Called by `document`.

In: types, and a name for the API. Out: a schema for each, and the components that they refer to, whose names begin with
that of the API: `openai.ChatCompletion`.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

JsonSchema = dict[str, Any]
REFERENCE = "#/components/schemas/"


def schemas_of(types: Sequence[Any], api: str) -> tuple[dict[Any, JsonSchema], dict[str, JsonSchema]]:
    """The schemas by their types, and the components."""
    schemas, components = msgspec.json.schema_components(types, ref_template=f"{REFERENCE}{{name}}")
    return (
        {kind: _tidy(schema, api) for kind, schema in zip(types, schemas, strict=True)},
        {component_name(name, api): _tidy(schema, api) for name, schema in components.items()},
    )


def component_name(name: str, api: str) -> str:
    """msgspec puts the module before names that several types have; its last part is enough."""
    return ".".join([api, *name.split(".")[-2:]])


def _tidy(value: Any, api: str) -> Any:
    """With our names of components, and without what only Python needs."""
    if isinstance(value, list):
        return [_tidy(item, api) for item in value]
    if isinstance(value, str) and value.startswith(REFERENCE):
        return REFERENCE + component_name(value.removeprefix(REFERENCE), api)
    if not isinstance(value, dict):
        return value
    tidied = {name: _tidy(item, api) for name, item in value.items() if not _is_idle(name, item)}
    if isinstance(value.get("description"), str):
        tidied["description"] = inspect.cleandoc(value["description"])
    return tidied


def _is_idle(name: str, value: Any) -> bool:
    """That a missing field is the same as null, is said once for all."""
    return name == "default" and value is None


def reachable(roots: Any, components: dict[str, JsonSchema]) -> dict[str, JsonSchema]:
    """Those components that `roots` refer to, in their order."""
    found: set[str] = set()
    todo = [roots]
    while todo:
        new = set(_references(todo.pop())) - found
        found |= new
        todo += [components[name] for name in new]
    return {name: schema for name, schema in components.items() if name in found}


def _references(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value.removeprefix(REFERENCE)] if value.startswith(REFERENCE) else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [name for item in items for name in _references(item)]
