"""What AG-UI's clients post, and the chat model's inputs that it becomes."""

import json

import pytest

import input_schema
from everstream.apis.ag_ui import requests
from everstream.contract.inputs import from_json, parse_body
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput

SCHEMA = parse_schema(input_schema.INPUT_SCHEMA, [])
RUN_ID = "run-1796057540123-a1b2c3"
HELLO = {"id": "1", "role": "user", "content": "Hello"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}


def body_of(*messages, **more):
    return {"threadId": "a-thread", "runId": RUN_ID, "messages": list(messages) or [HELLO], **more}


def flattened(body):
    return requests.flattened(parse_body(json.dumps(body).encode()))


def parsed(*messages, schema=SCHEMA, **more):
    given = flattened(body_of(*messages, **more))
    given.pop("request_id", None)
    return requests.parse(given, schema)


def inputs(*messages, **more):
    """What reaches the model."""
    given = from_json(parsed(*messages, **more).inputs, SCHEMA, 100_000)
    input_schema.check_inputs(given)
    return {**given, "messages": json.loads(given["messages"])}


def turns(*messages, **more):
    return inputs(*messages, **more)["messages"]


def error(*messages, **more):
    with pytest.raises(InvalidInput) as raised:
        parsed(*messages, **more)
    return raised.value


def test_a_plain_request():
    request = parsed(tools=[], context=[], state={}, forwardedProps={})
    assert inputs() == {"messages": [{"role": "user", "content": "Hello"}]}
    assert (request.run.thread_id, request.run.run_id, request.ignored) == ("a-thread", RUN_ID, [])


def test_the_runs_id_is_the_requests():
    assert flattened(body_of())["request_id"] == RUN_ID
    assert flattened(body_of() | {"runId": "1"})["request_id"] is None
    assert flattened(body_of() | {"runId": "with spaces, and so no id"})["request_id"] is None


def test_roles():
    messages = [
        {"id": "1", "role": "developer", "content": "Be brief."},
        HELLO,
        {"id": "3", "role": "reasoning", "content": "Which"},
        {"id": "4", "role": "reasoning", "content": " city?"},
        {
            "id": "5",
            "role": "assistant",
            "toolCalls": [
                {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
            ],
        },
        {"id": "6", "role": "tool", "toolCallId": "c", "content": "18 degrees"},
        {"id": "7", "role": "activity", "activityType": "plan", "content": {"steps": []}},
        {"id": "8", "role": "assistant", "content": "It is 18 degrees."},
        {"id": "9", "role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]
    function = {"name": "weather", "arguments": '{"city":"Rome"}'}
    assert turns(*messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": None,
            "reasoning": "Which city?",
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "18 degrees"},
        {"role": "assistant", "content": "It is 18 degrees."},
        {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
    ]


def test_what_was_stopped():
    """Reasoning without an answer, an answer without anything, and a call without a result."""
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
    made = turns(
        HELLO,
        {"id": "2", "role": "reasoning", "content": "cut"},
        HELLO,
        {"id": "3", "role": "reasoning", "content": "whole"},
        {"id": "4", "role": "assistant", "content": "Hi", "toolCalls": [called]},
        HELLO,
        {"id": "5", "role": "assistant", "toolCalls": [called]},
        {"id": "6", "role": "assistant"},
        HELLO,
    )
    hello = {"role": "user", "content": "Hello"}
    assert made == [hello, hello, {"role": "assistant", "content": "Hi", "reasoning": "whole"}, hello, hello]


def test_text_after_a_call_and_before_its_result():
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made = turns(
        HELLO,
        {"id": "2", "role": "assistant", "content": "a", "toolCalls": [called]},
        {"id": "3", "role": "assistant", "content": "b"},
        {"id": "4", "role": "tool", "toolCallId": "c", "content": "done"},
    )
    assert made[1:] == [
        {"role": "assistant", "content": "ab", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]


def test_a_failed_call_and_one_that_was_cut():
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
    made = turns(
        HELLO,
        {"id": "2", "role": "assistant", "toolCalls": [called]},
        {"id": "3", "role": "tool", "toolCallId": "c", "content": "", "error": "no such city"},
    )
    assert made[1]["tool_calls"][0]["function"]["arguments"] == '{"INVALID_JSON":"{\\"a\\":"}'
    assert made[2]["content"] == "Error: no such city"


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        ([HELLO], [{"role": "system", "content": "the page: Settings\nthe user: Ada"}]),
        (
            [{"id": "0", "role": "system", "content": "Be brief."}, HELLO],
            [{"role": "system", "content": "Be brief.\n\nthe page: Settings\nthe user: Ada"}],
        ),
    ],
)
def test_context(messages, wanted):
    context = [{"description": "the page", "value": "Settings"}, {"description": "the user", "value": "Ada"}]
    assert turns(*messages, context=context) == [*wanted, {"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ({"type": "url", "value": "https://example.com/a.png"}, "https://example.com/a.png"),
        ({"type": "data", "value": "QUJD", "mimeType": "image/png"}, "data:image/png;base64,QUJD"),
    ],
)
def test_images(source, url):
    (made,) = turns({"id": "1", "role": "user", "content": [{"type": "image", "source": source}]})
    assert made["content"] == [{"type": "image_url", "image_url": {"url": url}}]


def test_tools():
    given = inputs(tools=[{"name": "weather", "description": "Of a city", "parameters": WEATHER}, {"name": "now"}])
    assert [each["function"] for each in given["tools"]] == [
        {"name": "weather", "description": "Of a city", "parameters": WEATHER},
        {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    ]


def test_forwarded_properties_are_inputs():
    properties = {"temperature": 0.5, "max_tokens": 7, "stop": ["\n"], "mine": 1, "messages": [], "prompt": "x"}
    request = parsed(forwardedProps=properties, state={"a": 1})
    assert {"temperature": 0.5, "max_tokens": 7}.items() <= request.inputs.items()
    assert request.ignored == ["mine", "prompt", "state"]
    assert flattened(body_of(forwardedProps={"model": "other", "flush_ms": 5}))["model"] == "other"


@pytest.mark.parametrize("run_id", [RUN_ID, "short"])
def test_forwarded_properties_are_no_fields_of_the_protocol(run_id):
    """Above all, another id would let one run take another's name."""
    properties = {"request_id": "x" * 16, "threadId": "other", "tools": [{"name": "f"}], "context": 3, "messages": 4}
    given = flattened(body_of(forwardedProps=properties) | {"runId": run_id})
    assert (given["request_id"], given["threadId"]) == (RUN_ID if run_id == RUN_ID else None, "a-thread")
    assert not {"tools", "context"} & given.keys() and isinstance(given["messages"], list)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "value": "x"}}]}]},
            "messages[0].content[0].source.type",
        ),
        ({"threadId": ""}, "threadId"),
        ({"threadId": "x" * 201}, "threadId"),
        ({"runId": 1}, "runId"),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [{"description": "nameless"}]}, "tools[0]"),
        ({"context": [{"value": "x"}]}, "context[0]"),
        ({"forwardedProps": []}, "forwardedProps"),
        ({"forwardedProps": {str(n): 1 for n in range(10_000)}}, "forwardedProps"),
        ({"messages": [{"role": "tool", "content": [{"type": "image"}]}]}, "messages[0].content"),
        ({"messages": [HELLO] * 1000 + [[]] * 200_000}, "messages"),
    ],
)
def test_bad_requests_name_the_field(body, param):
    assert error(**body).param == param


def test_a_missing_field():
    with pytest.raises(InvalidInput, match="runId is missing"):
        flattened({"threadId": "a", "messages": [HELLO]})


def test_a_model_without_messages():
    assert error(schema=parse_schema({"prompt": {"datatype": "STRING", "shape": [1], "required": True}}, [])).param
