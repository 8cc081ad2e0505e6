"""One route's `Description` as an OpenAPI operation. Pure. Called by `document`."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from everstream.apis.openapi.access import Guarding
from everstream.apis.openapi.fields import FieldSchemas, Properties
from everstream.contract.inlining import JsonSchema
from everstream.errors import InternalError
from everstream.web.description import Answer, ApiDescription, Description, Events, Failure, Fields, failures
from everstream.web.sse import MIMETYPE

JSON = "application/json"
DEFAULT_EVENT = "message"
HEADER_REFERENCE = "#/components/headers/"
RETRY_AFTER = {"Retry-After": "Seconds after which to send the request again."}


def types_of(api: ApiDescription) -> Iterator[Any]:
    """All types that the API's descriptions mention."""
    yield api.error
    if api.path:
        yield api.path
    for events in api.formats:
        yield from _types_in(events)
    for route in api.routes.values():
        yield from (*route.query.types, *route.headers)
        if isinstance(route.body, Fields):
            yield from route.body.types
        elif route.body is not None:
            yield route.body
        for answer in route.answers.values():
            yield from _types_in(answer.events or {})
            if answer.json is not None:
                yield answer.json


def _types_in(events: Events) -> Iterator[Any]:
    for kinds in events.values():
        yield from (kind for kind in _alternatives(kinds) if not isinstance(kind, str))


def events_of(events: Events, schemas: Mapping[Any, JsonSchema]) -> list[JsonSchema]:
    """The schemas of events, each of which is an object with the fields of Server-Sent Events."""
    return [_event(name, kind, schemas) for name, kinds in events.items() for kind in _alternatives(kinds)]


def _event(name: str, kind: Any, schemas: Mapping[Any, JsonSchema]) -> JsonSchema:
    """The default event needs no name."""
    required = ["data"] if name == DEFAULT_EVENT else ["event", "data"]
    data: JsonSchema
    if isinstance(kind, str):
        data = {"const": kind}
    elif kind is str:
        data = {"type": "string"}
    else:
        data = {"type": "string", "contentMediaType": JSON, "contentSchema": schemas[kind]}
    fields = {"event": {"const": name}, "data": data, "id": {"type": "string"}}
    return {"type": "object", "properties": fields, "required": required}


class Operations:
    """Makes one API's operations. `schemas`: those of `types_of`. `formats`: the events of all APIs' formats."""

    def __init__(
        self,
        tag: str,
        api: ApiDescription,
        schemas: Mapping[Any, JsonSchema],
        fields: FieldSchemas,
        formats: Sequence[JsonSchema],
    ) -> None:
        self._tag = tag
        self._api = api
        self._schemas = schemas
        self._fields = fields
        self._formats = formats

    def operation(
        self, route: Description, arguments: Sequence[str], operation_id: str, guarding: Guarding
    ) -> JsonSchema:
        """`arguments`: the names of the parameters in its path."""
        parameters = [*self._path(arguments), *self._query(route.query), *self._request_headers(route.headers)]
        responses = _merged(self._answers(route.answers), self._failures([*route.failures, *guarding.failures]))
        return {
            "tags": [self._tag],
            "operationId": operation_id,
            "summary": route.summary,
            **({"description": route.details} if route.details else {}),
            **({"parameters": parameters} if parameters else {}),
            **self._body(route.body, is_optional=route.body_is_optional),
            "responses": {str(status): responses[status] for status in sorted(responses)},
            **({"security": guarding.schemes} if guarding.schemes else {}),
        }

    def _path(self, arguments: Sequence[str]) -> list[JsonSchema]:
        known = self._fields.of_structs([self._api.path] if self._api.path else [])
        return [_parameter("path", name, known.schemas[name], is_required=True) for name in arguments]

    def _query(self, query: Fields) -> list[JsonSchema]:
        return list(_parameters("query", self._fields.query(query)))

    def _request_headers(self, types: Sequence[type]) -> list[JsonSchema]:
        return list(_parameters("header", self._fields.of_structs(types)))

    def _body(self, body: Any, *, is_optional: bool) -> JsonSchema:
        if body is None:
            return {}
        schema = self._fields.body(body) if isinstance(body, Fields) else self._schemas[body]
        return {"requestBody": {"required": not is_optional, "content": {JSON: {"schema": schema}}}}

    def _answers(self, answers: Mapping[int, Answer]) -> dict[int, JsonSchema]:
        return {status: self._answer(answer) for status, answer in answers.items()}

    def _answer(self, answer: Answer) -> JsonSchema:
        content: JsonSchema = {}
        if answer.json is not None:
            content[JSON] = {"schema": self._schemas[answer.json]}
        if answer.events is not None:
            events = events_of(answer.events, self._schemas)
            content[MIMETYPE] = {"schema": {"anyOf": [*events, *(self._formats if answer.has_formats else ())]}}
        if answer.media:
            content[answer.media] = {"schema": {"type": "string"}}
        return {
            "description": answer.about,
            **self._headers(answer.headers),
            **({"content": content} if content else {}),
        }

    def _headers(self, more: Mapping[str, str]) -> JsonSchema:
        own = {name: {"$ref": HEADER_REFERENCE + name} for name in self._api.headers}
        headers = own | {name: header(about) for name, about in more.items()}
        return {"headers": headers} if headers else {}

    def _failures(self, given: Sequence[Failure]) -> dict[int, JsonSchema]:
        known = sorted({*given, *failures(InternalError)})
        return {status: self._failure(list(group)) for status, group in groupby(known, lambda failure: failure.status)}

    def _failure(self, group: list[Failure]) -> JsonSchema:
        codes = ", ".join(f"`{code}`" for code in dict.fromkeys(failure.code for failure in group))
        retry = RETRY_AFTER if any(failure.may_retry for failure in group) else {}
        return {
            "description": codes,
            **self._headers(retry),
            "content": {JSON: {"schema": self._schemas[self._api.error]}},
        }


def _merged(answers: Mapping[int, JsonSchema], errors: Mapping[int, JsonSchema]) -> dict[int, JsonSchema]:
    """A status may be that of an answer and of an error."""
    both = {status: _either(answers[status], errors[status]) for status in answers.keys() & errors.keys()}
    return {**answers, **errors, **both}


def _either(answer: JsonSchema, error: JsonSchema) -> JsonSchema:
    headers = answer.get("headers", {}) | error.get("headers", {})
    contents = [response.get("content", {}) for response in (answer, error)]
    schemas = {
        media: [each[media]["schema"] for each in contents if media in each] for media in contents[0] | contents[1]
    }
    return {
        "description": f"{answer['description']} Or {error['description']}.",
        **({"headers": headers} if headers else {}),
        "content": {
            media: {"schema": found[0] if len(found) == 1 else {"anyOf": found}} for media, found in schemas.items()
        },
    }


def _alternatives(kinds: Any) -> tuple[Any, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _parameters(place: str, properties: Properties) -> Iterator[JsonSchema]:
    for name, schema in properties.schemas.items():
        yield _parameter(place, name, schema, is_required=name in properties.required)


def _parameter(place: str, name: str, schema: JsonSchema, *, is_required: bool) -> JsonSchema:
    """Its schema's description is its own."""
    schema = _present(schema)
    about = {"description": schema["description"]} if "description" in schema else {}
    schema = {key: value for key, value in schema.items() if key != "description"}
    return {"name": name, "in": place, "required": is_required, **about, "schema": schema}


def _present(schema: JsonSchema) -> JsonSchema:
    """A parameter is left out rather than null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else schema


def header(about: str) -> JsonSchema:
    return {"description": about, "schema": {"type": "string"}}
