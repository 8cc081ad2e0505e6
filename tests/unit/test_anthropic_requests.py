"""Anthropic's requests, and the chat model's inputs that they become."""

import json

import msgspec
import pytest

import input_schema
from everstream.apis.anthropic import requests
from everstream.contract.inputs import from_json, parse_body
from everstream.contract.schema import parse_schema
from everstream.errors import InvalidInput
from everstream.web import posts

SCHEMA = parse_schema(input_schema.INPUT_SCHEMA, [])
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"name": "weather", "description": "Of a city", "input_schema": {"properties": {"city": {"type": "string"}}}}
ANSWER = {"type": "object", "properties": {"answer": {"type": "integer"}}}


def parsed(parse=requests.messages, schema=SCHEMA, **body):
    body = {"max_tokens": 10, "messages": HELLO, "stream": True, **body}
    return parse(parse_body(json.dumps(body).encode()), schema)


def inputs(parse=requests.messages, schema=SCHEMA, **body):
    """What reaches the model."""
    given = from_json(parsed(parse, schema, **body).inputs, schema, 100_000)
    input_schema.check_inputs(given)
    return {**given, "messages": json.loads(given["messages"])}


def turns(*messages, **body):
    return inputs(messages=list(messages), **body)["messages"]


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def text(text, **more):
    return {"type": "text", "text": text, **more}


def call(call_id="toolu_1", name="weather", **arguments):
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(content, call_id="toolu_1", **more):
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aWk="}}


def test_a_plain_request():
    assert inputs() == {"messages": HELLO, "max_tokens": 10}


def test_sampling_has_vllms_names():
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop_sequences": ["a", "b"], "cache_salt": "s"}
    given = inputs(**sampling)
    assert {name: given[name] for name in ("temperature", "top_p", "top_k", "stop", "cache_salt", "max_tokens")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop": ["a", "b"],
        "cache_salt": "s",
        "max_tokens": 10,
    }


def test_the_model_knows_whether_the_answer_comes_whole():
    assert inputs(stream=False) == {**inputs(), "stream": False}
    assert not parsed(stream=False).is_stream
    assert parsed().is_stream


def test_a_model_with_fewer_inputs():
    fewer = {name: SCHEMA[name] for name in ("messages", "max_tokens")}
    thinking = {"type": "enabled", "budget_tokens": 2000}
    assert inputs(schema=fewer, thinking=thinking, cache_salt="s", stream=False) == inputs()
    with pytest.raises(InvalidInput, match="does not accept tools") as caught:
        parsed(schema=fewer, tools=[WEATHER])
    assert caught.value.param == "tools"


def test_null_and_empty_values_are_as_good_as_none():
    sampling = ("temperature", "top_p", "top_k", "stop_sequences", "stream")
    others = ("system", "tools", "tool_choice", "thinking", "output_config", "output_format", "mcp_servers", "metadata")
    empty = {"tools": [], "stop_sequences": [], "system": "", "mcp_servers": [], "output_config": {}, "stream": False}
    for given in (dict.fromkeys((*sampling, *others, "unknown")), empty):
        assert inputs(**given) == inputs(stream=False)
        assert (parsed(**given).ignored, parsed(**given).is_stream) == ([], False)


def test_what_has_no_effect_is_named():
    advisory = {"metadata": {"user_id": "u"}, "service_tier": "auto", "inference_geo": "eu", "future": [1] * 5000}
    request = parsed(**advisory, thinking={"type": "adaptive", "display": "omitted"}, stream=True)
    assert request.ignored == [*advisory, "thinking.display"]
    assert request.is_stream


@pytest.mark.parametrize(
    "system",
    ["Be brief.\nSpeak French.", [text("Be brief.", cache_control={"type": "ephemeral"}), text("Speak French.")]],
)
def test_system(system):
    assert turns(*HELLO, system=system) == [{"role": "system", "content": "Be brief.\nSpeak French."}, *HELLO]


def test_claude_codes_billing_header_is_not_for_the_model():
    system = [text("x-anthropic-billing-header: cc_version=1; cch=8a1f"), text("Be brief.")]
    assert turns(*HELLO, system=system)[0] == {"role": "system", "content": "Be brief."}
    assert turns(*HELLO, system=system[:1]) == HELLO


def test_a_system_message_keeps_its_place():
    later = {"role": "system", "content": [text("Now in French.")]}
    messages = [*HELLO, assistant(text("Hi")), later, *HELLO]
    assert [turn["role"] for turn in turns(*messages)] == ["user", "assistant", "system", "user"]
    assert turns(*messages)[2]["content"] == "Now in French."


def test_images_become_parts():
    url = {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}}
    assert turns(user(PIXEL, text("And this?"), url)) == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWk="}},
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            ],
        }
    ]


def test_only_images_are_images():
    assert posts.has_media(from_json(parsed(messages=[user(PIXEL)]).inputs, SCHEMA, 1000))
    assert not posts.has_media(from_json(parsed(messages=[user(text('"image_url":'))]).inputs, SCHEMA, 1000))


def test_a_response_can_be_sent_back():
    """With what SDKs add to its blocks, and with the results of its calls."""
    answer = assistant(
        {"type": "thinking", "thinking": "Which city?", "signature": "s"},
        {"type": "redacted_thinking", "data": "opaque"},
        text("Let me look.", citations=None),
        {**call(city="Paris"), "caller": None},
        call("toolu_2", "time"),
    )
    back = user(
        text("Thanks."),
        result("18 °C"),
        result([text("noon"), PIXEL, text("UTC")], "toolu_2", is_error=False, cache_control={"type": "ephemeral"}),
    )
    assert turns(*HELLO, answer, back) == [
        *HELLO,
        {
            "role": "assistant",
            "content": "Let me look.",
            "reasoning": "Which city?",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "toolu_1",
                    "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
                },
                {"type": "function", "id": "toolu_2", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "18 °C", "tool_call_id": "toolu_1"},
        {"role": "tool", "content": "noon\nUTC", "tool_call_id": "toolu_2"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aWk="}},
                {"type": "text", "text": "Thanks."},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("no such city", is_error=True), "Error: no such city"),
        (result(None), ""),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, ""),
        (result([]), ""),
    ],
)
def test_tool_results(block, content):
    messages = turns(*HELLO, assistant(call()), user(block))
    assert messages[1].get("content") is None
    assert messages[2:] == [{"role": "tool", "content": content, "tool_call_id": "toolu_1"}]


def test_consecutive_messages_of_one_role_are_one_turn():
    results = [user(result("1")), user(result("2", "toolu_2"), text("Go on."))]
    messages = turns(*HELLO, user(text("Anyone?")), assistant(call()), assistant(call("toolu_2")), *results)
    assert [turn["role"] for turn in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [part["text"] for part in messages[0]["content"]] == ["Hello", "Anyone?"]
    assert [each["id"] for each in messages[1]["tool_calls"]] == ["toolu_1", "toolu_2"]
    assert messages[-1]["content"] == "Go on."


def test_empty_text_blocks_mean_nothing():
    assert turns(user(text(""), text("Hello"))) == HELLO
    assert turns(user()) == [{"role": "user", "content": ""}]


def test_the_assistants_last_message_is_continued():
    given = inputs(messages=[*HELLO, {"role": "assistant", "content": "The answer is ("}])
    assert given["continue_final_message"] is True
    assert given["add_generation_prompt"] is False
    assert given["messages"][-1] == {"role": "assistant", "content": "The answer is ("}


@pytest.mark.parametrize("content", ["", [], [{"type": "redacted_thinking", "data": "opaque"}]])
def test_an_empty_last_message_asks_for_an_answer(content):
    assert inputs(messages=[*HELLO, {"role": "assistant", "content": content}]) == inputs()


def test_tools():
    given = inputs(tools=[{**WEATHER, "type": "custom", "strict": True, "input_examples": [{}]}])
    parameters = {"type": "object", **WEATHER["input_schema"]}
    function = {"name": "weather", "description": "Of a city", "strict": True, "parameters": parameters}
    assert given["tools"] == [{"type": "function", "function": function}]
    assert "tool_choice" not in given


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"parallel_tool_calls": False}),
        ({"type": "any", "disable_parallel_tool_use": False}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            {"tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False},
        ),
    ],
)
def test_tool_choice(choice, expected):
    given = inputs(tools=[WEATHER], tool_choice=choice)
    assert {name: given[name] for name in given if name not in ("messages", "max_tokens", "tools")} == expected


@pytest.mark.parametrize("choice", [{"type": "auto"}, {"type": "none"}])
def test_a_choice_among_no_tools(choice):
    assert inputs(tools=[], tool_choice=choice) == inputs()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinking_token_budget": 2000, "chat_template_kwargs": {"enable_thinking": True}},
        ),
        ({"thinking": {"type": "adaptive"}}, {"chat_template_kwargs": {"enable_thinking": True}}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "between_tools"}}, {"reasoning_effort": "none"}),
        ({"output_config": {"effort": "max", "format": None}}, {"reasoning_effort": "max"}),
        (
            {"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"enable_thinking": False, "x": 1}},
            {"chat_template_kwargs": {"enable_thinking": False, "x": 1}},
        ),
    ],
)
def test_thinking(given, expected):
    assert inputs(**given) == {**inputs(), **expected}


@pytest.mark.parametrize("where", ["output_config", "output_format"])
def test_json_schema(where):
    wanted = {"type": "json_schema", "schema": ANSWER}
    given = inputs(**{where: {"format": wanted} if where == "output_config" else wanted})
    assert given["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": ANSWER},
    }


def test_count_tokens_takes_the_prompt_alone():
    prompt = {"system": "Be brief.", "tools": [WEATHER], "tool_choice": {"type": "any"}}
    whole = inputs(**prompt)
    del whole["max_tokens"]
    assert inputs(requests.prompt, **prompt) == whole
    assert parsed(requests.prompt, **prompt).ignored == ["max_tokens", "stream"]


def test_a_long_body_is_the_same():
    """Longer than the arrays and objects that are parsed at once."""
    long = "é" * 5000
    given = inputs(
        messages=[user(text(long)), assistant(call(city=long)), user(result(long))],
        tools=[{**WEATHER, "description": long}],
        system=[text(long)],
    )
    assert given["messages"][0] == {"role": "system", "content": long}
    assert json.loads(given["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"city": long}
    assert given["messages"][3]["content"] == long
    assert given["tools"][0]["function"]["description"] == long


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"max_tokens": None}, "max_tokens", "int"),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"max_tokens": "10"}, "max_tokens", "got `str`"),
        ({"messages": []}, "messages", "empty"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages", "empty"),
        ({"messages": [], "system": "Be brief."}, "messages", "empty"),
        ({"messages": "Hello"}, "messages", "array"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "'tool'"),
        ({"messages": [{"content": "x"}]}, "messages[0]", "role"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "content"),
        ({"messages": [user({"type": "document", "source": {}})]}, "messages[0].content[0].type", "document"),
        ({"messages": [user({"type": "document", "source": {}})]}, "messages[0].content[0].type", "tool_result"),
        ({"messages": [user(call())]}, "messages[0].content[0].type", "tool_use"),
        ({"messages": [assistant(PIXEL)]}, "messages[0].content[0].type", "image"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            "messages[0].content[0].source.type",
            "base64 or a url",
        ),
        ({"messages": [assistant({**call(), "input": [1]})]}, "messages[0].content[0].input", "object"),
        ({"messages": [*HELLO, assistant(call())]}, "messages", "last message"),
        ({"messages": [*HELLO, assistant({"type": "thinking", "thinking": "…"})]}, "messages", "last message"),
        ({"tools": [WEATHER, {"type": "web_search_20250305", "name": "w"}]}, "tools[1].type", "web_search_20250305"),
        ({"tools": [{"type": "computer_toolset_20260801"}]}, "tools[0].type", "computer_toolset_20260801"),
        ({"tools": [{"name": "a", "input_schema": None}]}, "tools[0].input_schema", "object"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "needs tools"),
        ({"tool_choice": {"type": "tool", "name": "weather"}, "tools": []}, "tool_choice", "needs tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice", "'x'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "all"}}, "tool_choice.type", "auto, any, tool, none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens", ">= 1"),
        ({"thinking": {"type": "deep"}}, "thinking.type", "adaptive"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type", "json_schema"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort", "huge"),
        ({"stop_sequences": "x"}, "stop_sequences", "array"),
        ({"stream": "yes"}, "stream", "bool"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers", "not supported"),
        ({"thread": {"id": "t"}}, "thread", "not supported"),
    ],
)
def test_what_cant_be_honoured_is_named(body, param, message):
    with pytest.raises(InvalidInput) as caught:
        parsed(**body)
    assert caught.value.param == param
    assert message in caught.value.message
    assert len(caught.value.message) < 400


def test_missing_fields_are_named():
    for body, param in (({"messages": HELLO}, "max_tokens"), ({"max_tokens": 1}, "messages")):
        with pytest.raises(InvalidInput, match=f"{param} is missing") as caught:
            requests.messages(body, SCHEMA)
        assert caught.value.param == param


def test_a_quoted_value_is_cut():
    with pytest.raises(InvalidInput) as caught:
        parsed(messages=[{"role": "x" * 10_000, "content": ""}])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("name", ["messages", "future"])
def test_many_small_values_do_not_become_objects(name):
    many = b"[" + b"[]," * 200_000 + b"[]]"
    with pytest.raises(InvalidInput, match="arrays and objects"):
        requests.messages({"max_tokens": 1, "messages": HELLO, name: msgspec.Raw(many)}, SCHEMA)


def test_bytes_that_are_not_utf8():
    long = b'{"role":"user","content":"' + b"x" * 5000 + b'\xff"}'
    body = b'{"max_tokens":1,"messages":[' + long + b"]}"
    with pytest.raises(InvalidInput):
        requests.messages(parse_body(body), SCHEMA)
