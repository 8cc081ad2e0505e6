"""A request can't make the engine compile a grammar that would take long or much memory."""

import json

import pytest

from everstream.errors import InvalidInput
from everstream.llm.input_bounds import MAX_CONTAINERS, MAX_REPETITIONS, check_bounds
from everstream.llm.messages import check_inputs

LONG = f"(a|b){{1,{MAX_REPETITIONS + 1}}}"


def tool(schema):
    return [{"type": "function", "function": {"name": "a", "parameters": schema}}]


@pytest.mark.parametrize(
    "inputs",
    [
        {"structured_outputs": {"regex": LONG}},
        {"structured_outputs": {"regex": "a{600}b{600,}"}},
        {"structured_outputs": {"regex": "a{ 1 , 99999999999999999999 }"}},
        {"structured_outputs": {"grammar": f"root ::= {LONG}"}},
        {"structured_outputs": {"json": {"items": [{"pattern": LONG}]}}},
        {"structured_outputs": {"json": json.dumps({"pattern": LONG})}},
        {"structured_outputs": {"structural_tag": json.dumps({"pattern": LONG})}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": LONG}}}},
        {"response_format": {"json_schema": {"schema": {"patternProperties": {LONG: {}}}}}},
        {"tools": tool({"properties": {"a": {"anyOf": [{"pattern": "a{400}"}] * 3}}})},
    ],
)
def test_too_many_repetitions_are_refused(inputs):
    (name,) = inputs
    with pytest.raises(InvalidInput, match="more than 1000 repetitions") as raised:
        check_inputs({"prompt": "a", **inputs})
    assert raised.value.param == name


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_references_that_lead_nowhere_are_refused(schema):
    for inputs in (
        {"structured_outputs": {"json": schema}},
        {"structured_outputs": {"json": json.dumps(schema)}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}},
        {"tools": tool(schema)},
    ):
        (name,) = inputs
        with pytest.raises(InvalidInput, match="leads back to itself") as raised:
            check_bounds(inputs)
        assert raised.value.param == name


def test_recursive_schemas_are_allowed():
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/other"}}}
    check_bounds({"tools": tool({"$ref": "#/$defs/tree", "$defs": {"tree": tree, "other": {"$ref": "#/$defs/tree"}}})})
    check_bounds({"tools": tool({"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#/$defs/gone"}}})})
    check_bounds({"tools": [1, {"function": "a"}], "response_format": {"json_schema": 7}})


def test_large_schemas_are_refused():
    for size, is_allowed in ((MAX_CONTAINERS - 6, True), (MAX_CONTAINERS, False)):
        inputs = {"tools": tool({"enum": [[]] * size})}
        if is_allowed:
            check_bounds(inputs)
        else:
            with pytest.raises(InvalidInput, match="more than 2000 arrays and objects"):
                check_bounds(inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"tools": [1] * 100_000}, "more than 20000 values"),
        ({"tools": tool({}) * 257}, "257 tools; at most 256"),
        ({"tools": tool({"properties": {str(n): {} for n in range(257)}})}, "more than 256 properties in one object"),
        ({"tools": {}}, "must be an array"),
        ({"documents": [0] * 100_000}, "more than 20000 values"),
        ({"chat_template_kwargs": {str(n): 0 for n in range(30_000)}}, "more than 20000 values"),
        ({"logit_bias": {str(n): 0 for n in range(30_000)}}, "more than 20000 values"),
        ({"structured_outputs": 5}, "must be an object"),
        ({"structured_outputs": {"json": json.dumps({"enum": [[]] * MAX_CONTAINERS})}}, "more than 2000 arrays"),
        ({"structured_outputs": {"json": "[" * 100_000}}, "nested too deep"),
        ({"response_format": []}, "must be an object"),
    ],
)
def test_large_and_odd_values_are_refused(inputs, message):
    with pytest.raises(InvalidInput, match=message) as raised:
        check_bounds(inputs)
    assert [raised.value.param] == list(inputs)


def test_deep_schemas_are_no_problem():
    schema = {}
    for _ in range(MAX_CONTAINERS - 10):
        schema = {"items": schema}
    check_bounds({"tools": tool(schema)})


def test_usual_patterns_are_accepted():
    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    check_bounds(
        {
            "tools": tool({"properties": {"id": {"pattern": uuid}, "text": {"maxLength": 100_000}}}),
            "structured_outputs": {"regex": r"\{[a-z]{2,8}\}"},
            "response_format": {"description": "about a{5000}"},
        }
    )
