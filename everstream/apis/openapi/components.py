"""The schemas of one API's types, by msgspec's own generator. Pure. Called by `document`.

In: types, and a name for the API. Out: a schema for each, and the components that they refer to, whose names begin with
that of the API: `openai.ChatCompletion`.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from everstream.contract.inlining import JsonSchema
from everstream.web.description import REQUIRED_MARK

REFERENCE = "#/components/schemas/"


def schemas_of(types: Sequence[Any], api: str) -> tuple[dict[Any, JsonSchema], dict[str, JsonSchema]]:
    """The schemas by their types, and the components. Raises ValueError if two types would have the same name."""
    schemas, components = msgspec.json.schema_components(types, ref_template=f"{REFERENCE}{{name}}")
    names = {name: component_name(name, api) for name in components}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two types of {api} have the same name: {sorted(names)}")
    return (
        {kind: _tidy(schema, names) for kind, schema in zip(types, schemas, strict=True)},
        {names[name]: _tidy(schema, names) for name, schema in components.items()},
    )


def component_name(name: str, api: str) -> str:
    """msgspec puts the module before names that several types have; its last part is enough."""
    return ".".join([api, *name.split(".")[-2:]])


def _tidy(value: Any, names: Mapping[str, str]) -> Any:
    """Rename component references, drop null defaults, and write what generators of clients can read."""
    if isinstance(value, list):
        return [_tidy(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    tidied = {name: _tidy(item, names) for name, item in value.items() if not _is_dropped(name, item)}
    if value.get("type") == "array" and "prefixItems" not in value:
        tidied.setdefault("items", {})
    if all(isinstance(item, bool) for item in value.get("enum", [None])):
        del tidied["enum"]
        tidied["type"] = "boolean"
    if reference := _reference(value):
        tidied["$ref"] = _renamed(reference, names)
    if "discriminator" in value:
        mapping = value["discriminator"]["mapping"]
        renamed = {tag: _renamed(name.removeprefix(REFERENCE), names) for tag, name in mapping.items()}
        tidied["discriminator"]["mapping"] = renamed
    if isinstance(value.get("description"), str):
        tidied["description"] = inspect.cleandoc(value["description"])
    for name, field in tidied.get("properties", {}).items():
        if field.pop(REQUIRED_MARK, False):
            tidied["properties"][name] = _without_default(field)
            tidied.setdefault("required", []).append(name)
    return tidied


def _without_default(field: JsonSchema) -> JsonSchema:
    plain = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
    return {**plain, **options[0]} if len(options) == 1 else {**plain, **({"anyOf": options} if options else {})}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    return REFERENCE + names[name]


def _is_dropped(name: str, value: Any) -> bool:
    """Null defaults, which the document's description covers; and titles, because generators name their classes by
    them, and several types of ours have the same."""
    return (name == "default" and value is None) or (name == "title" and isinstance(value, str))


def reachable(roots: Any, components: Mapping[str, JsonSchema]) -> dict[str, JsonSchema]:
    """Those components that `roots` refer to, in their order. A model's examples may refer to anything."""
    found: set[str] = set()
    todo = [roots]
    while todo:
        new = {name for name in _references(todo.pop()) if name in components} - found
        found |= new
        todo += [components[name] for name in new]
    return {name: schema for name, schema in components.items() if name in found}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if reference := _reference(value):
            yield reference
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


def _reference(schema: Mapping[str, Any]) -> str:
    """The name of the component that it refers to; empty if to none."""
    reference = schema.get("$ref")
    is_known = isinstance(reference, str) and reference.startswith(REFERENCE)
    return str(reference).removeprefix(REFERENCE) if is_known else ""
