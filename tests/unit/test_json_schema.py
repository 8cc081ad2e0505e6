"""Inputs as JSON Schema: a table. `stack/test_openapi.py` compares the schemas with what is taken."""

import pytest

from everstream.contract.json_schema import in_body, in_query, inlined
from everstream.contract.schema import Field

MOST = 100
LIST = {"type": "array", "items": {"type": "string"}, "maxItems": 1000}
LIMITED = {"type": "string", "minLength": 1, "maxLength": 5}
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


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        (Field("STRING", required=True), {"type": "string"}),
        (Field("STRING", required=True, is_prompt=True), {"type": "string", "maxLength": MOST}),
        (Field("BYTES", required=True, is_prompt=True, min_length=1, max_length=5), LIMITED),
        (Field("BOOL"), {"type": ["boolean", "null"]}),
        (Field("INT8"), {"type": ["integer", "null"], "minimum": -128, "maximum": 127}),
        (Field("INT64"), {"type": ["integer", "null"], "minimum": -(2**63), "maximum": 2**63 - 1}),
        (Field("INT32", minimum=0), {"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1}),
        (Field("FP16", maximum=2.5), {"type": ["number", "null"], "maximum": 2.5}),
        (Field("STRING", [-1], required=True), {"anyOf": [LIST, {"type": "string"}]}),
        (Field("STRING", [-1]), {"anyOf": [LIST, {"type": "string"}, {"type": "null"}]}),
        (
            Field("BOOL", [2, -1], required=True),
            {
                "type": "array",
                "items": {"type": "array", "items": {"type": "boolean"}},
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Field("JSON"), {}),
        (Field("JSON", required=True, json_schema=TREE), PLAIN_TREE),
        (Field("STRING", required=True, format="json", json_schema=TREE), {"anyOf": [PLAIN_TREE, JSON_TEXT]}),
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


def test_schema_without_references_stays():
    assert inlined({"type": "object", "properties": {"$ref": {"type": "string"}}}) == {
        "type": "object",
        "properties": {"$ref": {"type": "string"}},
    }
