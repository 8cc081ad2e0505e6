"""What the AI SDK's transports post, and the chat model's inputs that it becomes."""

import json

import pytest

import input_schema
from everstream.apis.ai_sdk import requests
from everstream.apis.ai_sdk.conversation import DENIED
from everstream.contract.inputs import from_json, parse_body
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput

SCHEMA = parse_schema(input_schema.INPUT_SCHEMA, [])
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def message(role, *parts, **more):
    return {"id": "m", "role": role, "parts": list(parts), **more}


def text(text, **more):
    return {"type": "text", "text": text, **more}


def tool(state, name="weather", call_id="call_1", **more):
    return {"type": f"tool-{name}", "toolCallId": call_id, "state": state, "input": {"city": "Paris"}, **more}


STEP = {"type": "step-start"}
HELLO = message("user", text("Hello"))


def parsed(*messages, schema=SCHEMA, **body):
    return requests.parse(parse_body(json.dumps({"messages": list(messages) or [HELLO], **body}).encode()), schema)


def inputs(*messages, schema=SCHEMA, **body):
    """What reaches the model."""
    given = from_json(parsed(*messages, schema=schema, **body).inputs, schema, 100_000)
    input_schema.check_inputs(given)
    return {**given, "messages": json.loads(given["messages"])}


def turns(*messages, **body):
    return inputs(*messages, **body)["messages"]


def called(call_id="call_1", arguments='{"city":"Paris"}', name="weather"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_plain_request():
    request = parsed(id="a-chat-of-the-client", trigger="submit-message", messageId=None)
    assert inputs() == {"messages": [{"role": "user", "content": "Hello"}]}
    assert (request.chat, request.is_continuation, request.ignored) == ("a-chat-of-the-client", False, [])


def test_system():
    system = {"role": "system", "content": "Be brief."}
    assert turns(message("system", text("Be "), text("brief.")), HELLO)[0] == system
    assert turns(HELLO, system="Be brief.")[0] == system


def test_several_parts_of_a_user():
    image = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aWk=", "filename": "a.png"}
    data = {"type": "data-weather", "data": {"a": 1}, "id": "1"}
    assert turns(message("user", text("a"), data, text("b"), image))[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWk="}},
    ]


def test_an_answer_goes_back():
    answer = message(
        "assistant",
        STEP,
        {"type": "reasoning", "text": "Hm.", "state": "done"},
        text("It is", state="done", providerMetadata={"a": {}}),
        {"type": "source-url", "sourceId": "1", "url": "https://a.example"},
        text(" blue."),
        metadata={"usage": {}},
    )
    assert turns(HELLO, answer, HELLO)[1] == {"role": "assistant", "content": "It is blue.", "reasoning": "Hm."}


def test_each_step_is_a_turn_with_its_results():
    answer = message(
        "assistant",
        STEP,
        text("Let me look."),
        tool("output-available", output={"degrees": 18}),
        {**tool("output-available", call_id="call_2", output="noon"), "type": "dynamic-tool", "toolName": "time"},
        STEP,
        text("18 degrees."),
    )
    assert turns(HELLO, answer, HELLO)[1:4] == [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [called(), called("call_2", name="time")]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees":18}'},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
    ]
    assert turns(HELLO, answer, HELLO)[4] == {"role": "assistant", "content": "18 degrees."}


@pytest.mark.parametrize(
    ("part", "result"),
    [
        (tool("output-available", output=None), "null"),
        (tool("output-error", errorText="no such city"), "Error: no such city"),
        (tool("output-denied", approval={"id": "1", "approved": False, "reason": "Too dear."}), "Too dear."),
        (tool("approval-responded", approval={"id": "1", "approved": False}), DENIED),
    ],
)
def test_results_of_calls(part, result):
    made = turns(HELLO, message("assistant", STEP, part))
    assert made[-1] == {"role": "tool", "tool_call_id": "call_1", "content": result}
    assert parsed(HELLO, message("assistant", STEP, part)).is_continuation


@pytest.mark.parametrize(
    "part",
    [
        tool("input-streaming"),
        tool("input-available"),
        tool("approval-requested", approval={"id": "1"}),
        tool("approval-responded", approval={"id": "1", "approved": True}),
    ],
)
def test_calls_without_a_result_are_left_out(part):
    assert turns(HELLO, message("assistant", STEP, part), HELLO) == turns(HELLO, HELLO)
    assert turns(HELLO, message("assistant", STEP, text("a"), part), HELLO)[1] == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({"input": {"a": 1}}, '{"a":1}'),
        ({"input": None}, "{}"),
        ({"input": None, "rawInput": '{"a'}, '{"INVALID_JSON":"{\\"a"}'),
        ({"input": '{"a'}, '{"INVALID_JSON":"{\\"a"}'),
        ({"input": [1]}, '{"INVALID_JSON":"[1]"}'),
    ],
)
def test_arguments_are_objects(given, arguments):
    part = {**tool("output-error", errorText="no"), **given}
    assert turns(HELLO, message("assistant", part), HELLO)[1]["tool_calls"] == [called(arguments=arguments)]


def test_steering_is_a_turn_of_the_user():
    steering = {"type": "steering-message", "id": "1", "parts": [text("In French.")]}
    answer = message("assistant", STEP, text("a"), steering, STEP, text("b"))
    assert [turn["content"] for turn in turns(HELLO, answer, HELLO)] == ["Hello", "a", "In French.", "b", "Hello"]


def test_the_last_text_is_continued():
    given = inputs(HELLO, message("assistant", STEP, text("It is")))
    assert (given["continue_final_message"], given["add_generation_prompt"]) == (True, False)
    for parts in ([{"type": "reasoning", "text": "Hm"}], [tool("input-available")], [tool("output-available")], []):
        assert "continue_final_message" not in inputs(HELLO, message("assistant", *parts))


def test_settings_have_both_names():
    given = {"maxOutputTokens": 9, "topP": 0.5, "topK": 3, "presencePenalty": 1, "frequencyPenalty": 1}
    names = {"max_tokens": 9, "top_p": 0.5, "top_k": 3, "presence_penalty": 1.0, "frequency_penalty": 1.0}
    more = {"temperature": 0.5, "seed": 7}
    assert inputs(**given, stopSequences=["a"], **more) == {**inputs(), **names, "stop": ["a"], **more}
    assert inputs(**names, stop=["a"], **more) == inputs(**given, stopSequences=["a"], **more)


FUNCTION = {"name": "weather", "description": "Of a city", "parameters": WEATHER}


@pytest.mark.parametrize(
    "tools",
    [
        {"weather": {"description": "Of a city", "inputSchema": WEATHER}},
        {"weather": {"description": "Of a city", "parameters": WEATHER}},
        {"weather": {"description": "Of a city", "inputSchema": {"properties": WEATHER["properties"]}}},
        [{"type": "function", "function": FUNCTION}],
    ],
)
def test_tools(tools):
    assert inputs(tools=tools)["tools"] == [{"type": "function", "function": FUNCTION}]


def test_tool_choice():
    tools = {"weather": {}}
    assert inputs(tools=tools, toolChoice="required")["tool_choice"] == "required"
    chosen = inputs(tools=tools, toolChoice={"type": "tool", "toolName": "weather"})["tool_choice"]
    assert chosen == {"type": "function", "function": {"name": "weather"}}
    assert "tool_choice" not in inputs(tools={}, toolChoice="required")


def test_an_applications_own_fields_are_named():
    request = parsed(sessionId="s", config={"a": [1] * 5000}, n=2, stream=False, metadata=None)
    assert request.ignored == ["sessionId", "config", "n", "stream"]
    assert request.inputs.keys() == {"messages"}


def test_a_model_with_fewer_inputs():
    fewer = {name: SCHEMA[name] for name in ("messages", "max_tokens")}
    assert inputs(schema=fewer, maxOutputTokens=9)["max_tokens"] == 9
    assert parsed(schema=fewer, min_p=1).ignored == ["min_p"]
    for body, param in (({"topP": 1}, "top_p"), ({"temperature": 1}, "temperature"), ({"tools": {"f": {}}}, "tools")):
        with pytest.raises(InvalidInput, match="does not accept") as caught:
            parsed(schema=fewer, **body)
        assert caught.value.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "parts": []}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages[0]"),
        ({"messages": [message("user", {"type": "text", "text": 7})]}, "messages[0].parts[0].text"),
        ({"messages": [HELLO, message("user", text("a"), {"type": "audio"})]}, "messages[1].parts[1]"),
        ({"messages": [message("user", tool("input-available"))]}, "messages[0].parts[0]"),
        ({"messages": [HELLO, message("assistant", {"type": "file", "url": "a"})]}, "messages[1].parts[0]"),
        (
            {"messages": [message("user", {"type": "file", "mediaType": "text/plain", "url": "data:,a"})]},
            "messages[0].parts[0]",
        ),
        ({"messages": [message("user", {"type": "file", "mediaType": "image/png"})]}, "messages[0].parts[0]"),
        ({"messages": [HELLO], "id": 7}, "id"),
        ({"messages": [HELLO], "tools": {"f": 7}}, "tools[...]"),
        ({"messages": [HELLO], "tools": {"f": {}}, "toolChoice": "f"}, "toolChoice"),
        ({"messages": [HELLO], "maxOutputTokens": 0}, "maxOutputTokens"),
        ({"messages": [[]] * 100_001}, "messages"),
    ],
)
def test_what_is_refused(body, param):
    with pytest.raises(InvalidInput) as caught:
        requests.parse(parse_body(json.dumps(body).encode()), SCHEMA)
    assert caught.value.param == param


def test_parts_of_unknown_types_are_named():
    image = {"type": "hologram", "mediaType": "image/png", "url": "data:image/png;base64,aWk="}
    for role in ("user", "assistant"):
        with pytest.raises(InvalidInput, match="'hologram' are not supported"):
            parsed(message(role, image))


def test_half_a_surrogate_pair():
    body = json.dumps({"messages": [message("user", text("a"))], "id": "x" * 20}).replace('"a"', '"\\ud800"')
    with pytest.raises(InvalidInput):
        from_json(requests.parse(parse_body(body.encode()), SCHEMA).inputs, SCHEMA, 100_000)
