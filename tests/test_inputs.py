"""Every wrong input is named, with what is allowed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import input_schema
from everstream import inputs
from everstream.errors import InvalidInput

SCHEMA = input_schema.INPUT_SCHEMA
MAX_CHARS = 1000


def from_json(body):
    given = inputs.from_json(body, SCHEMA, MAX_CHARS)
    input_schema.check_inputs(given)
    return given


def from_query(**query):
    lists = {name: value if isinstance(value, list) else [value] for name, value in query.items()}
    given = inputs.from_query(lists, SCHEMA, MAX_CHARS)
    input_schema.check_inputs(given)
    return given


def test_a_query_and_a_body_say_the_same():
    messages = [{"role": "user", "content": "hi"}]
    body = {"messages": messages, "max_tokens": 5, "temperature": 0, "top_p": 0.5, "seed": 2**40, "stop": ["a", "b"]}
    query = from_query(
        messages=json.dumps(messages), max_tokens="5", temperature="0", top_p="0.5", seed=str(2**40), stop=["a", "b"]
    )
    assert from_json(body) == query
    assert input_schema.parse_messages(query["messages"]) == messages


def test_optional_inputs_are_absent():
    assert from_json({"prompt": "hi", "seed": None}) == {"prompt": "hi"}


def test_a_string_may_stand_for_an_array_of_one():
    assert from_json({"prompt": "hi", "stop": "x"})["stop"] == ["x"]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ([], "body", "must be a JSON object"),
        ({}, "prompt", "prompt is missing"),
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"prompt": " \n"}, "prompt", "prompt is empty"),
        ({"prompt": "x" * 1001}, "prompt", "1001 characters, allowed are at most 1000"),
        ({"prompt": 7}, "prompt", "must be a string, got int"),
        ({"prompt": ["a"]}, "prompt", "must be a string, got list"),
        ({"prompt": "\ud800"}, "prompt", "half a surrogate pair"),
        ({"promt": "a"}, "promt", "did you mean prompt?"),
        ({"prompt": "a", "messages": "[]"}, "messages", "not both"),
        ({"messages": "[]", "system": "a"}, "system", "goes with prompt"),
        ({"messages": "{"}, "messages", "not JSON"),
        ({"messages": []}, "messages", "1 to 1000"),
        ({"messages": {"role": "user"}}, "messages", "JSON array"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "role and content"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "boss", "content": "a"}]},
            "messages[1].role",
            "one of",
        ),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content", "must be a string"),
        ({"messages": '[{"role": "user", "content": "\\ud800"}]'}, "messages[0].content", "surrogate"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "from 1 to 1000000, got 0"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "a whole number, got float"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens", "a whole number, got bool"),
        ({"prompt": "a", "temperature": 2.5}, "temperature", "from 0 to 2"),
        ({"prompt": "a", "temperature": "hot"}, "temperature", "a number, got str"),
        ({"prompt": "a", "temperature": 10**400}, "temperature", "beyond any floating-point number"),
        ({"prompt": "a", "top_p": 0}, "top_p", "from 0.001 to 1"),
        ({"prompt": "a", "top_k": -1}, "top_k", "from 0"),
        ({"prompt": "a", "seed": 2**63}, "seed", "got 9223372036854775808"),
        ({"prompt": "a", "stop": ["a"] * 5}, "stop", "5 items, allowed are at most 4"),
        ({"prompt": "a", "stop": [""]}, "stop", "must not be empty"),
        ({"prompt": "a", "stop": ["x" * 201]}, "stop", "at most 200"),
        ({"prompt": "a", "stop": [1]}, "stop", "must be a string"),
    ],
)
def test_wrong_bodies(body, param, message):
    with pytest.raises(InvalidInput) as raised:
        from_json(body)
    assert raised.value.param == param
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("query", "param", "message"),
    [
        ({"prompt": ["a", "b"]}, "prompt", "given 2 times"),
        ({"prompt": "a", "max_tokens": "1_0"}, "max_tokens", "a whole number, got '1_0'"),
        ({"prompt": "a", "max_tokens": "\u0661"}, "max_tokens", "a whole number"),
        ({"prompt": "a", "max_tokens": "1e3"}, "max_tokens", "a whole number"),
        ({"prompt": "a", "max_tokens": "9" * 5000}, "max_tokens", "a whole number"),
        ({"prompt": "a", "temperature": "nan"}, "temperature", "from 0 to 2"),
        ({"prompt": "a", "temperature": "inf"}, "temperature", "from 0 to 2"),
        ({"prompt": "a", "temperature": ""}, "temperature", "a number, got ''"),
        ({"prompt": "a", "": "b"}, "", "unknown parameter"),
    ],
)
def test_wrong_queries(query, param, message):
    with pytest.raises(InvalidInput) as raised:
        from_query(**query)
    assert raised.value.param == param
    assert message in raised.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}', b'{"a": ' + b"9" * 5000 + b"}"])
def test_bodies_that_are_no_json(body):
    with pytest.raises(InvalidInput) as raised:
        inputs.parse_body(body)
    assert raised.value.param == "body"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(st.dictionaries(st.sampled_from([*SCHEMA, "other"]), JSON))
def test_any_body_is_taken_or_complained_of(body):
    try:
        taken = from_json(body)
    except InvalidInput as error:
        assert error.param is not None and error.message
    else:
        assert ("prompt" in taken) != ("messages" in taken)


def test_what_a_schema_requires_must_be_given():
    schema = {"count": {"datatype": "INT32", "required": True, "shape": [1]}}
    assert inputs.from_json({"count": 3}, schema, 10) == {"count": 3}
    for body in ({}, {"count": None}):
        with pytest.raises(InvalidInput, match="count is missing"):
            inputs.from_json(body, schema, 10)


def test_truth_and_arrays_of_a_fixed_size():
    schema = {
        "flag": {"datatype": "BOOL", "shape": [1]},
        "pair": {"datatype": "UINT8", "shape": [2]},
    }
    assert inputs.from_query({"flag": ["True"], "pair": ["0", "255"]}, schema, 10) == {"flag": True, "pair": [0, 255]}
    for query in ({"flag": ["yes"]}, {"pair": ["1"]}, {"pair": ["1", "256"]}, {"pair": ["1", "-1"]}):
        with pytest.raises(InvalidInput):
            inputs.from_query(query, schema, 10)
    with pytest.raises(InvalidInput):
        inputs.from_json({"flag": 1}, schema, 10)
