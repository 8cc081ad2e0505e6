"""INPUT_SCHEMA: what is accepted, what is refused when the model loads, and which values its inputs take."""

import pytest

from everstream.contract import inputs
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput, ModelLoadError


def parse(warnings=None, **field):
    return parse_schema({"x": field}, [] if warnings is None else warnings)


def given(value, **field):
    return inputs.from_json({"x": value}, parse(**field), 1000)["x"]


INTEGERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        *((name, 7) for name in [*INTEGERS, "INT", "int32"]),
        *((name, 0.5) for name in ("FP16", "FP32", "FP64", "BF16", "FLOAT", "float")),
        *((name, "text") for name in ("STRING", "BYTES", "string")),
        *((name, True) for name in ("BOOL", "BOOLEAN", "Bool")),
    ],
)
def test_datatypes(datatype, value):
    assert given(value, datatype=datatype, shape=[1], required=True, example=[value]) == value
    with pytest.raises(InvalidInput, match="x must be"):
        given({"no": "type"}, datatype=datatype)


def test_bounds_of_integers():
    for name in INTEGERS:
        bits = int(name.removeprefix("U")[3:])
        low, high = (0, 2**bits - 1) if name[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert (given(low, datatype=name), given(high, datatype=name)) == (low, high)
        for outside in (low - 1, high + 1):
            with pytest.raises(InvalidInput, match=f"from {low} to {high}"):
                given(outside, datatype=name)


@pytest.mark.parametrize(
    ("shape", "value", "arrives"),
    [
        ([1], 5, 5),
        ([1], [5], 5),
        (1, 5, 5),
        ([3], [1, 2, 3], [1, 2, 3]),
        ([-1], [1, 2], [1, 2]),
        ([-1], [], []),
        ([-1], 7, [7]),
        ([2, 2], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ([2, 2], [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([-1, 3], [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        ([-1, 3], [[1, 2, 3]], [[1, 2, 3]]),
        ([2, -1], [1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        ([1, 1], [[5]], [[5]]),
        ([-1, -1], [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([2, 1, 2], [1, 2, 3, 4], [[[1, 2]], [[3, 4]]]),
    ],
)
def test_shapes(shape, value, arrives):
    assert given(value, datatype="INT32", shape=shape) == arrives


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ([3], [1, 2], "3 items, got 2"),
        ([2, 2], [1, 2, 3], "4 items, got 3"),
        ([-1, 3], [1, 2, 3, 4], "a multiple of 3 items, got 4"),
        ([-1, 3], [[1, 2]], r"shape \[-1, 3\]"),
        ([2, 2], [[1, 2]], r"shape \[2, 2\]"),
        ([-1, -1], [1, 2], "nested"),
        ([-1], [[1]], "each item of x must be a whole number"),
        ([-1], ["1"], "each item of x must be a whole number"),
        ([-1], [1, 2**40], "from -2147483648 to 2147483647"),
        ([-1], {"a": 1}, "each item of x must be a whole number"),
    ],
)
def test_values_that_do_not_fit_the_shape(shape, value, message):
    with pytest.raises(InvalidInput, match=message) as raised:
        given(value, datatype="INT32", shape=shape)
    assert raised.value.param == "x"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({}, r"INPUT_SCHEMA\['x'\] has no datatype; allowed are STRING"),
        ({"datatype": "INT24"}, "unknown datatype 'INT24'; did you mean INT"),
        ({"datatype": 5}, "unknown datatype 5"),
        ({"datatype": "STRING", "shape": [0]}, r"shape must be .* got \[0\]"),
        ({"datatype": "STRING", "shape": "1"}, "shape must be .* got '1'"),
        ({"datatype": "STRING", "shape": [1.5]}, "shape must be"),
        ({"datatype": "STRING", "required": "yes"}, "required"),
        ({"datatype": "INT32", "minimum": "low"}, "minimum"),
    ],
)
def test_field_that_is_refused_at_load(field, message):
    with pytest.raises(ModelLoadError, match=message):
        parse(**field)


@pytest.mark.parametrize("declared", [[], "x", None, {"x": "STRING"}, {1: {}}, {"": {}}])
def test_schema_that_is_refused_at_load(declared):
    with pytest.raises(ModelLoadError, match="INPUT_SCHEMA"):
        parse_schema(declared, [])


def test_unknown_key_is_a_warning():
    warnings = []
    assert parse(warnings, datatype="STRING", descripton="text")["x"].datatype == "STRING"
    assert warnings == [
        "INPUT_SCHEMA['x']: unknown key descripton is ignored; known keys: datatype, shape, required, example, "
        "minimum, maximum, min_length, max_length, max_items, format, json_schema, is_prompt, model_checks"
    ]


def test_json_schema_that_can_not_be_shown_is_a_warning():
    warnings = []
    assert parse(warnings, datatype="JSON", json_schema={"$ref": "#/$defs/X"})["x"].json_schema == {"$ref": "#/$defs/X"}
    assert warnings == [
        "INPUT_SCHEMA['x']: json_schema can't be shown, so any JSON is: unknown $ref '#/$defs/X'; only #/$defs/… within"
        " the schema are known"
    ]
    parse(warnings, datatype="JSON", json_schema={"$ref": "#/$defs/X", "$defs": {"X": {}}})
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("datatype", "example", "taken_as"), [("INT8", [768], "INT64"), ("UINT8", [-1], "INT64"), ("INT32", [0.7], "FP64")]
)
def test_example_beyond_its_datatype_is_taken_with_a_warning(datatype, example, taken_as):
    """Public models declare, for instance, a width of 768 as INT8."""
    warnings = []
    schema = parse(warnings, datatype=datatype, shape=[1], example=example)
    assert inputs.from_json({"x": example}, schema, 1000) == {"x": example[0]}
    [warning] = warnings
    assert f"{datatype} does not cover the example {example}; taken as {taken_as}" in warning


def test_string_that_holds_json_stays_a_string():
    assert given('{"a": [1]}', datatype="STRING") == '{"a": [1]}'


def test_model_without_inputs():
    assert inputs.from_json({}, {}, 1000) == {}
    with pytest.raises(InvalidInput, match="this model takes no inputs"):
        inputs.from_json({"x": 1}, {}, 1000)


def test_shape_and_query():
    schema = parse(datatype="FP32", shape=[2, 2])
    assert inputs.from_query({"x": ["1", "2", "3", "4"]}, schema, 1000) == {"x": [[1, 2], [3, 4]]}
