"""Inputs as JSON Schema: a table. `stack/test_openapi.py` compares the schemas with what is taken."""

import re

import pytest

from everstream.contract.inlining import MAX_BYTES, MAX_DEPTH, inlined
from everstream.contract.json_schema import in_body, in_query
from everstream.contract.schema import Field

MOST = 100
LIST = {"type": "array", "items": {"type": "string"}, "maxItems": 1000}
LIMITED = {"type": "string", "minLength": 1, "maxLength": 5}
BOOL = {"type": "boolean"}
LEAF, BRANCH = {"$ref": "#/$defs/Leaf"}, {"$ref": "#/$defs/Tree"}
TREE = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {"type": "object", "properties": {"leaf": LEAF, "more": BRANCH}},
        "Leaf": {"type": "string"},
    },
}
PLAIN_TREE = {"type": "object", "properties": {"leaf": {"type": "string"}, "more": {}}}
JSON_TEXT = {"type": "string", "contentMediaType": "application/json"}
NULL = {"type": "null"}


def array(item, least=None, most=None):
    bounds = {"minItems": least, "maxItems": most}
    return {"type": "array", "items": item, **{name: bound for name, bound in bounds.items() if bound is not None}}


def nullable(**schema):
    return {"anyOf": [schema, NULL]}


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        (Field("STRING", required=True), {"type": "string"}),
        (Field("STRING", required=True, is_prompt=True), {"type": "string", "maxLength": MOST}),
        (Field("BYTES", required=True, is_prompt=True, min_length=1, max_length=5), LIMITED),
        (Field("BOOL"), nullable(type="boolean")),
        (Field("INT8"), nullable(type="integer", minimum=-128, maximum=127)),
        (Field("INT64"), nullable(type="integer", minimum=-(2**63), maximum=2**63 - 1)),
        (Field("INT32", minimum=0), nullable(type="integer", minimum=0, maximum=2**31 - 1)),
        (Field("FP16", maximum=2.5), nullable(type="number", maximum=2.5)),
        (Field("STRING", [-1], required=True), {"anyOf": [LIST, {"type": "string"}]}),
        (Field("STRING", [-1]), {"anyOf": [LIST, {"type": "string"}, {"type": "null"}]}),
        (Field("BOOL", [3]), {"anyOf": [array(BOOL, 3, 3), NULL]}),
        (Field("BOOL", [2, 3], required=True), {"anyOf": [array(array(BOOL, 3, 3), 2, 2), array(BOOL, 6, 6)]}),
        (Field("BOOL", [1, 1], required=True), {"anyOf": [array(array(BOOL, 1, 1), 1, 1), array(BOOL, 1, 1), BOOL]}),
        (
            Field("BOOL", [-1, 1], required=True, max_items=9),
            {"anyOf": [array(array(BOOL, 1, 1), None, 9), array(BOOL, None, 9), BOOL]},
        ),
        (Field("BOOL", [2, -1], required=True, max_items=9), array(array(BOOL, None, 4), 2, 2)),
        (Field("BOOL", [-1, -1], required=True), array(array(BOOL), 1)),
        (Field("BOOL", [1] * 9, required=True), {"anyOf": [{"type": "array"}, BOOL]}),
        (Field("JSON"), {}),
        (Field("JSON", required=True, json_schema=TREE), PLAIN_TREE),
        (Field("JSON", json_schema=TREE), nullable(**PLAIN_TREE)),
        (Field("JSON", json_schema={"anyOf": [BOOL], "title": "x"}), nullable(anyOf=[BOOL], title="x")),
        (Field("STRING", required=True, format="json", json_schema=TREE), {"anyOf": [PLAIN_TREE, JSON_TEXT]}),
        (Field("STRING", required=True, format="json", json_schema={"$ref": "#"}), {"anyOf": [{}, JSON_TEXT]}),
        (Field("JSON", json_schema={"$ref": "#"}), {}),
    ],
)
def test_value_in_a_body(field, schema):
    assert in_body(field, MOST) == schema


@pytest.mark.parametrize(
    ("field", "example"),
    [
        (Field("STRING", example=["a"]), "a"),
        (Field("STRING", example="a"), "a"),
        (Field("STRING", [-1], example="a"), ["a"]),
        (Field("STRING", [-1], example=["a", "b"]), ["a", "b"]),
        (Field("STRING", format="json", example=['[{"a": 1}]']), [{"a": 1}]),
        (Field("STRING", format="json", example="not JSON"), "not JSON"),
        (Field("JSON", example=[{"a": 1}]), [{"a": 1}]),
    ],
)
def test_example_is_the_value_itself(field, example):
    assert in_body(field, MOST)["examples"] == [example]


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        (Field("INT8", example=[1]), {"type": "integer", "minimum": -128, "maximum": 127}),
        (Field("STRING", [-1]), LIST),
        (Field("BOOL", [2, 2]), {"type": "array", "items": {"type": "boolean"}, "minItems": 4, "maxItems": 4}),
        (Field("JSON", json_schema=TREE), JSON_TEXT),
        (Field("STRING", format="json"), JSON_TEXT),
    ],
)
def test_text_of_a_query(field, schema):
    assert in_query(field, MOST) == schema


def brackets(count):
    return count * "[" + count * "]"


@pytest.mark.parametrize(
    "example",
    ["x" * MAX_BYTES, [[]] * MAX_BYTES, brackets(MAX_DEPTH + 1), brackets(MAX_BYTES)],
    ids=["text", "list", "depth", "much depth"],
)
def test_example_that_is_too_large_is_not_shown(example):
    assert "examples" not in in_body(Field("STRING", format="json", example=example), MOST)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"$ref": {"type": "string"}}},
        {"enum": [{"$ref": "#/no/reference"}], "examples": [{"$ref": 1}]},
        {"properties": {"x": True, "y": False}, "additionalProperties": False},
        {"properties": {"discriminator": {"type": "string"}}},
    ],
)
def test_schema_without_references_stays(schema):
    assert inlined(schema) == schema


def test_property_that_is_named_like_a_keyword_may_be_a_reference():
    schema = {"properties": {"enum": {"$ref": "#/$defs/Leaf"}}, "$defs": {"Leaf": {"type": "string"}}}
    assert inlined(schema) == {"properties": {"enum": {"type": "string"}}}


def test_names_of_definitions_are_dropped_with_them():
    union = {"oneOf": [{"$ref": "#/$defs/Leaf"}], "discriminator": {"propertyName": "type", "mapping": {}}}
    assert inlined(union | {"$defs": {"Leaf": {}}}) == {"oneOf": [{}]}


def mutual(count):
    """Definitions that refer to all others."""
    names = [f"d{number}" for number in range(count)]
    definitions = {
        name: {"anyOf": [{"$ref": f"#/$defs/{other}"} for other in names if other != name]} for name in names
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def chain(count):
    definitions = {f"d{number}": {"items": {"$ref": f"#/$defs/d{number + 1}"}} for number in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{count}": {}}}


def nested(count):
    schema = {}
    for _ in range(count):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"$ref": "#"}, "unknown $ref '#'"),
        ({"$ref": "#/definitions/X"}, "unknown $ref '#/definitions/X'"),
        ({"items": {"$ref": "#/$defs/X"}, "$defs": {"Y": {}}}, "unknown $ref '#/$defs/X'"),
        ({"$defs": []}, "$defs must be an object"),
        ({"anyOf": []}, "length >= 1 - at `$.anyOf`"),
        ({"anyOf": {}}, "at `$.anyOf`"),
        ({"description": 1}, "at `$.description`"),
        ({"properties": {"x": {"items": {"pattern": 1}}}}, "pattern`"),
        ({"properties": []}, "at `$.properties`"),
        ({"properties": {"x": 1}}, "at `$.properties[...]`"),
        ({"minimum": "1"}, "at `$.minimum`"),
        ({"default": object()}, "can't be written as JSON"),
        ({"title": "x" * MAX_BYTES}, f"more than {MAX_BYTES} bytes"),
        (mutual(12), f"more than {MAX_BYTES} bytes"),
        (chain(MAX_DEPTH), "nested more than"),
        (chain(900), "nested too deep"),
        (nested(MAX_DEPTH), "nested more than"),
        (nested(5000), "can't be written as JSON"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_schema_that_can_not_be_shown(schema, problem):
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        inlined(schema)
    assert "\n" not in str(raised.value)
