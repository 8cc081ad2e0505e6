"""The OpenAPI document of all APIs. Pure. Called by `routes`.

In: the routes, the APIs' descriptions, and what is served. Out: the document. Its schemas are those of the
descriptions' types, and of the models' own inputs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from everstream.apis.openapi.access import SCHEMES, guarding
from everstream.apis.openapi.components import reachable, schemas_of
from everstream.apis.openapi.fields import FieldSchemas, ModelInputs
from everstream.apis.openapi.operation import Operations, events_of, header, types_of
from everstream.contract.inlining import JsonSchema
from everstream.web.access.rules import Rule
from everstream.web.description import EVENT_FORMAT, SERVED_MODEL, ApiDescription, Description

ABOUT = """\
Token streams that survive dropped connections, killed web workers and dead engines. An event stream is resumed with the
id of the last event that was seen; the prompt is not run again. The schema of `text/event-stream` is that of each of
its events.

A body's top-level field that is null is the same as one that is missing. A request line or headers that can't be read,
or are too long, get 400, 414 or 431, whatever the path."""


class Route(NamedTuple):
    """`path` is Flask's. `view`: the name of its view function, with that of its blueprint before it. `rule`: who may
    call it."""

    path: str
    method: str
    view: str
    rule: Rule | None = None


class Served(NamedTuple):
    """What the document depends on besides the routes. `formats`: those of events."""

    version: str
    inputs: ModelInputs
    formats: tuple[str, ...]
    needs_keys: bool = False


def document(apis: Mapping[str, ApiDescription], routes: Sequence[Route], served: Served) -> JsonSchema:
    """`apis`: by the names of their blueprints."""
    enums = {SERVED_MODEL: tuple(served.inputs.by_model), EVENT_FORMAT: served.formats}
    made = {name: _schemas_of(name, api, enums) for name, api in apis.items()}
    formats = [event for name, api in apis.items() for each in api.formats for event in events_of(each, made[name][0])]
    paths: dict[str, JsonSchema] = {}
    for name, api in apis.items():
        fields = FieldSchemas(*made[name], served.inputs)
        operations = Operations(name, api, made[name][0], fields, formats)
        for route in routes:
            if described := _description(route, name, api):
                _add(paths, route, operations, described, needs_keys=served.needs_keys)
    components = {name: schema for _, own in made.values() for name, schema in own.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Everstream", "version": served.version, "description": ABOUT},
        "tags": [{"name": name, "description": api.about} for name, api in apis.items()],
        "paths": paths,
        "components": {
            "schemas": reachable(paths, components),
            **({"securitySchemes": SCHEMES} if served.needs_keys else {}),
            "headers": {name: header(about) for api in apis.values() for name, about in api.headers.items()},
        },
    }


_ARGUMENT = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def _description(route: Route, name: str, api: ApiDescription) -> Description | None:
    blueprint, _, view = route.view.partition(".")
    return api.routes.get(view) if blueprint == name else None


def _add(
    paths: dict[str, JsonSchema], route: Route, operations: Operations, described: Description, *, needs_keys: bool
) -> None:
    path = _ARGUMENT.sub(r"{\1}", route.path)
    before = guarding(route.rule, route.method, needs_keys=needs_keys)
    operation = operations.operation(described, _ARGUMENT.findall(route.path), _operation_id(route, path), before)
    paths.setdefault(path, {})[route.method.lower()] = operation


def _operation_id(route: Route, path: str) -> str:
    return "_".join([route.method.lower(), *re.findall("[A-Za-z0-9_]+", path)])


def _schemas_of(
    name: str, api: ApiDescription, enums: Mapping[str, Sequence[str]]
) -> tuple[dict[Any, JsonSchema], dict[str, JsonSchema]]:
    schemas, components = schemas_of(list(dict.fromkeys(types_of(api))), name)
    return (
        {kind: _with_enums(schema, enums) for kind, schema in schemas.items()},
        {each: _with_enums(schema, enums) for each, schema in components.items()},
    )


def _with_enums(value: Any, enums: Mapping[str, Sequence[str]]) -> Any:
    """Replace placeholder formats by enums."""
    if isinstance(value, list):
        return [_with_enums(item, enums) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: _with_enums(item, enums) for name, item in value.items()}
    kind = found.get("format")
    if not (isinstance(kind, str) and kind in enums):
        return found
    return {name: item for name, item in found.items() if name != "format"} | {"enum": list(enums[kind])}
