"""Every invalid input is reported by name, with the values that are allowed."""

import json
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import input_schema
from everstream.contract import inputs
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput
from everstream.llm.messages import as_messages, check_media, parse_messages

SCHEMA = parse_schema(input_schema.INPUT_SCHEMA, [])
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


def test_query_and_body_are_equivalent():
    messages = [{"role": "user", "content": "hi"}]
    body = {"messages": messages, "max_tokens": 5, "temperature": 0, "top_p": 0.5, "seed": 2**40, "stop": ["a", "b"]}
    query = from_query(
        messages=json.dumps(messages, separators=(",", ":")),
        max_tokens="5",
        temperature="0",
        top_p="0.5",
        seed=str(2**40),
        stop=["a", "b"],
    )
    assert from_json(body) == query
    assert as_messages(query) == messages


def test_messages_come_back_as_clients_got_them():
    """OpenAI's SDKs send the whole object back, and null is the same as absent."""
    answered = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None, "name": "a"}
    calls = [{"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "Be terse."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, "there"]},
        answered | {"function_call": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
        {"role": "function", "name": "now", "content": ""},
        {"role": "user"},
    ]
    assistant = {"role": "assistant", "content": "", "annotations": [], "name": "a", "tool_calls": calls}
    given = as_messages(from_json({"messages": messages}))
    assert given == [*messages[:2], assistant, *messages[3:5], {"role": "user", "content": ""}]


def test_media_are_not_shared_under_a_clients_name():
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    for medium in (part, {"type": "image_url"}):
        messages = json.dumps([{"role": "user", "content": [medium | {"uuid": "logo"}, "Whose?"]}])
        assert as_messages({"messages": messages}) == [{"role": "user", "content": [medium, "Whose?"]}]


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "file:///etc/passwd", "", None, 7])
@pytest.mark.parametrize("as_object", [True, False])
def test_only_media_in_the_request_itself_are_taken(url, as_object):
    def message(given):
        part = {"type": "image_url", "image_url": {"url": given} if as_object else given}
        return {"role": "user", "content": [{"type": "text", "text": "http://here"}, part]}

    check_media([message("data:image/png;base64,AA"), {"role": "user", "content": "http://text"}])
    with pytest.raises(InvalidInput, match="must be a data: URL") as raised:
        check_media([{"role": "user", "content": "a"}, message(url)])
    assert raised.value.param == "messages[1].content[1].image_url"


def test_optional_inputs_are_absent():
    assert from_json({"prompt": "hi", "seed": None}) == {"prompt": "hi"}


def test_string_is_accepted_as_an_array_of_one():
    assert from_json({"prompt": "hi", "stop": "x"})["stop"] == ["x"]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ([], "body", "must be a JSON object"),
        ({}, "prompt", "prompt is missing"),
        ({"prompt": ""}, "prompt", "prompt is empty"),
        ({"prompt": " \n"}, "prompt", "prompt is empty"),
        ({"prompt": "x" * 1001}, "prompt", "1001 characters; at most 1000 are allowed"),
        ({"prompt": 7}, "prompt", "must be a string, got int"),
        ({"prompt": ["a", "b"]}, "prompt", "must be a string, got list"),
        ({"prompt": "\ud800"}, "prompt", "half a surrogate pair"),
        ({"promt": "a"}, "promt", "did you mean prompt?"),
        ({"prompt": "a", "messages": "[]"}, "messages", "not both"),
        ({"messages": "[]", "system": "a"}, "system", "goes with prompt"),
        ({"messages": "[]", "raw": True}, "raw", "goes with prompt"),
        ({"prompt": "a", "system": "b", "raw": True}, "system", "no place in a raw prompt"),
        ({"prompt": "a", "raw": "yes"}, "raw", "true or false, got str"),
        ({"messages": "["}, "messages", "not JSON"),
        ({"messages": []}, "messages", "1 to 1000"),
        ({"messages": {"role": "user"}}, "messages", "JSON array"),
        ({"messages": [{"content": "a"}]}, "messages[0]", "role and content"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "boss", "content": "a"}]},
            "messages[1].role",
            "one of",
        ),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages[0].content[0]", "must be a string or an array"),
        ({"messages": [{"role": "user", "content": [{"type": 1}]}]}, "messages[0].content[0].type", "must be a string"),
        ({"messages": [{"role": "user", "content": "a", "name": 1}]}, "messages[0].name", "must be a string"),
        ({"messages": [{"role": "assistant", "tool_calls": 1}]}, "messages[0].tool_calls", "must be an array"),
        ({"messages": [{"role": "tool", "tool_call_id": 1}]}, "messages[0].tool_call_id", "must be a string"),
        ({"messages": '[{"role": "user", "content": "\\ud800"}]'}, "messages", "surrogate"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages", "invalid string or number"),
        ({"messages": [{"role": "a - at `$.zz", "content": "x"}]}, "messages[0].role", "one of"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "from 1 to 1000000, got 0"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens", "a whole number, got float"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens", "a whole number, got bool"),
        ({"prompt": "a", "temperature": 2.5}, "temperature", "from 0 to 2"),
        ({"prompt": "a", "temperature": "hot"}, "temperature", "a number, got str"),
        ({"prompt": "a", "temperature": 10**400}, "temperature", "too large for a floating-point number"),
        ({"prompt": "a", "top_p": -0.1}, "top_p", "from 0 to 1"),
        ({"prompt": "a", "top_k": -2}, "top_k", "from -1"),
        ({"prompts": ["a"] * 129}, "prompts", "129 choices"),
        ({"prompts": [[1]] * 65, "n": 2}, "prompts", "130 choices"),
        ({"prompt": "a", "prompts": ["b"]}, "prompts", "give either prompt or prompts, not both"),
        ({"prompt": "a", "seed": 2**63}, "seed", "got 9223372036854775808"),
        ({"prompt": "a", "stop": ["a"] * 5}, "stop", "5 items; at most 4 are allowed"),
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


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a": ' + b"[" * 100_000, b'{"a": NaN}', b'{"a": "\\ud800"}', b"[1]", b"7"]
)
def test_bodies_that_are_not_json(body):
    with pytest.raises(InvalidInput) as raised:
        inputs.parse_body(body)
    assert raised.value.param == "body"


@pytest.mark.parametrize(("value", "message"), [(b"9" * 5000, "out of range"), (b"1e999", "out of range")])
def test_number_out_of_range(value, message):
    with pytest.raises(InvalidInput, match=message) as raised:
        inputs.parse_body(b'{"seed": ' + value + b"}")
    assert raised.value.param == "seed"


def parsed(body):
    given = inputs.from_json(inputs.parse_body(body), SCHEMA, MAX_CHARS)
    input_schema.check_inputs(given)
    return given


def test_long_arrays_in_a_body():
    messages = [{"role": "user", "content": "a"}] * 200
    schema = parse_schema(
        {"texts": {"datatype": "STRING", "shape": [-1]}, "counts": {"datatype": "INT32", "shape": [-1]}}, []
    )
    body = {"texts": ["abcdefgh"] * 900, "counts": list(range(1000, 2000))}
    assert inputs.from_json(inputs.parse_body(json.dumps(body).encode()), schema, MAX_CHARS) == body
    text = inputs.from_json(inputs.parse_body(json.dumps({"messages": messages}).encode()), SCHEMA, 100_000)["messages"]
    assert as_messages({"messages": text}) == messages
    with pytest.raises(InvalidInput, match="1 to 1000"):
        parse_messages(json.dumps(messages * 6))


MIB = 1 << 20


@pytest.mark.parametrize(
    ("begin", "item", "end", "param", "message"),
    [
        (b'{"messages":[', b"[],", b"[]]}", "messages", "characters; at most"),
        (b'{"messages":{', b'"a":0,', b'"a":0}}', "messages", "characters; at most"),
        (b'{"prompt":[', b"0,", b"0]}", "prompt", "must be a string, got an array"),
        (b'{"stop":[', b"[],", b"[]]}", "stop", "each item of stop must be a string: Expected `str`, got `array`"),
        (b'{"prompt":"a","top_k":[', b"0,", b"0]}", "top_k", "must be a whole number"),
        (b'{"prompt":"a","other":[', b"{},", b"{}]}", "other", "unknown parameter 'other'"),
        (b"[", b"[],", b"[]]", "body", "must be a JSON object"),
    ],
)
def test_body_of_many_small_values_is_parsed_in_bounded_memory(begin, item, end, param, message):
    body = begin + item * (MIB // len(item)) + end
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as raised:
            parsed(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert raised.value.param == param
    assert message in raised.value.message
    assert peak < 6 * len(body)


def test_number_of_names_in_a_body_is_bounded():
    body = json.dumps(dict.fromkeys(map(str, range(1001)))).encode()
    with pytest.raises(InvalidInput, match="1001 names; at most 1000 are allowed"):
        inputs.parse_body(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@given(st.dictionaries(st.sampled_from([*SCHEMA, "other"]), JSON))
def test_any_body_is_accepted_or_refused_with_a_reason(body):
    try:
        accepted = from_json(body)
    except InvalidInput as error:
        assert error.param is not None and error.message
    else:
        assert len({"prompt", "prompts", "messages"} & accepted.keys()) == 1


def test_only_prompts_have_the_limit_of_prompts():
    schema = parse_schema(
        {
            "prompt": {"datatype": "STRING", "is_prompt": True},
            "short": {"datatype": "STRING", "is_prompt": True, "max_length": 20},
            "audio": {"datatype": "BYTES"},
        },
        [],
    )
    for body in ({"prompt": "x" * 10}, {"short": "x" * 20}, {"audio": "x" * 1_000_000}):
        assert inputs.from_json(body, schema, 10) == body
    for body in ({"prompt": "x" * 11}, {"short": "x" * 21}):
        with pytest.raises(InvalidInput, match="characters; at most"):
            inputs.from_json(body, schema, 10)


@pytest.mark.parametrize("name", ["settings", "grid"])
def test_number_of_arrays_in_a_value_is_bounded(name):
    schema = parse_schema({"settings": {"datatype": "JSON"}, "grid": {"datatype": "INT8", "shape": [-1, -1]}}, [])
    most = inputs.MAX_CONTAINERS
    whole = {name: msgspec.Raw(b"[" + b"[1]," * (most - 2) + b"[1]]")}
    assert len(inputs.from_json(whole, schema, 10)[name]) == most - 1
    for more in (b"[" + b"[1]," * (most - 1) + b"[1]]", b"[" + b"[1]," * (most - 2) + b"{},[1]]"):
        with pytest.raises(InvalidInput, match=f"{name} has more than 100000 arrays and objects") as raised:
            inputs.from_json({name: msgspec.Raw(more)}, schema, 10)
        assert raised.value.param == name


def test_required_inputs_must_be_given():
    schema = parse_schema({"count": {"datatype": "INT32", "required": True, "shape": [1]}}, [])
    assert inputs.from_json({"count": 3}, schema, 10) == {"count": 3}
    for body in ({}, {"count": None}):
        with pytest.raises(InvalidInput, match="count is missing"):
            inputs.from_json(body, schema, 10)


def test_booleans_and_fixed_size_arrays():
    schema = parse_schema(
        {
            "flag": {"datatype": "BOOL", "shape": [1]},
            "pair": {"datatype": "UINT8", "shape": [2]},
        },
        [],
    )
    assert inputs.from_query({"flag": ["True"], "pair": ["0", "255"]}, schema, 10) == {"flag": True, "pair": [0, 255]}
    for query in ({"flag": ["yes"]}, {"pair": ["1"]}, {"pair": ["1", "256"]}, {"pair": ["1", "-1"]}):
        with pytest.raises(InvalidInput):
            inputs.from_query(query, schema, 10)
    with pytest.raises(InvalidInput):
        inputs.from_json({"flag": 1}, schema, 10)
