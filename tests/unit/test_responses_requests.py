"""Requests of the Responses API: what becomes of each field, and of items as the SDKs write and send them back."""

import json

import msgspec
import pytest
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseItem,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
)

from everstream.apis.openai.responses import history
from everstream.apis.openai.responses.items import Item, listed
from everstream.apis.openai.responses.requests import chat_inputs, own_param, parse
from everstream.contract import inputs
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from harness.openai_types import validated

GENERATION = "0123456789abcdef" * 2
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
NOW = {"type": "function", "name": "now"}
CHAT_NOW = {"type": "function", "function": {"name": "now"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def parsed(**body):
    """As a route does it: long values stay JSON."""
    return parse(inputs.parse_body(json.dumps({"input": "Hi"} | body).encode()))


def inputs_of(**body):
    found = parsed(**body)
    return json.loads(encode_json(chat_inputs(found, found.request.items)))


def messages_of(*items, **body):
    return inputs_of(input=list(items), **body)["messages"]


def refusal(**body):
    with pytest.raises(InvalidInput) as raised:
        inputs_of(**body)
    return raised.value


def test_string_is_a_users_message():
    assert inputs_of(input="Hi") == {"messages": [{"role": "user", "content": "Hi"}]}


def test_instructions_come_first():
    assert messages_of({"role": "user", "content": "Hi"}, instructions="Be terse.") == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.parametrize("role", ["user", "system", "developer", "assistant"])
@pytest.mark.parametrize("type_of", [{}, {"type": "message"}, {"type": None}])
def test_message_without_parts(role, type_of):
    assert messages_of({"role": role, "content": "Hi", **type_of}) == [{"role": role, "content": "Hi"}]


def test_one_text_is_a_string_and_several_stay_parts():
    one, other = {"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}
    assert messages_of({"role": "user", "content": [one]}) == [{"role": "user", "content": "a"}]
    (message,) = messages_of({"role": "user", "content": [one, other]})
    assert message["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages_of({"role": "user", "content": []}) == [{"role": "user", "content": ""}]


def test_image_is_a_part():
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low", "file_id": None}
    (message,) = messages_of({"role": "user", "content": [image]})
    url = {"url": "https://example.com/a.png", "detail": "low"}
    assert message["content"] == [{"type": "image_url", "image_url": url}]


def test_output_as_the_sdk_sends_it_back_is_one_turn():
    text = ResponseOutputText(annotations=[], text="Let me see.", type="output_text", logprobs=[])
    output = [
        ResponseReasoningItem(
            id="rs_1", summary=[], type="reasoning", content=[{"type": "reasoning_text", "text": "Hm"}]
        ),
        ResponseOutputMessage(id="msg_1", content=[text], role="assistant", status="completed", type="message"),
        ResponseFunctionToolCall(
            arguments='{"a":1}', call_id="call_1", name="weather", type="function_call", id="fc_1"
        ),
        ResponseFunctionToolCall(arguments="{}", call_id="call_2", name="now", type="function_call"),
    ]
    results = [{"type": "function_call_output", "call_id": "call_1", "output": "Rain"}]
    parts = [{"type": "input_text", "text": "noon"}]
    results += [{"type": "function_call_output", "call_id": "call_2", "output": parts, "id": None, "status": None}]
    for dumped in ({}, {"exclude_none": True}):
        asked = {"role": "user", "content": "How is it?"}
        sent = [item.model_dump(mode="json", **dumped) for item in output]
        assert messages_of(asked, *sent, *results) == [
            asked,
            {
                "role": "assistant",
                "reasoning": "Hm",
                "content": "Let me see.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a":1}'}},
                    {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
            {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
        ]


def test_second_message_of_an_assistant_is_a_second_turn():
    first, second = ({"role": "assistant", "content": text} for text in "ab")
    assert messages_of(first, second) == [first, second]


def test_refusal_and_summary_are_text():
    said = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "xyz"}
    assert messages_of(thought, said) == [{"role": "assistant", "reasoning": "Hm", "content": "No."}]


@pytest.mark.parametrize(
    ("status", "is_continued"), [("incomplete", True), ("in_progress", True), ("completed", False)]
)
def test_unfinished_message_at_the_end_is_continued(status, is_continued):
    said = {"role": "assistant", "content": "Once", "status": status}
    found = inputs_of(input=[said])
    flags = {"continue_final_message": True, "add_generation_prompt": False} if is_continued else {}
    assert found == {"messages": [{"role": "assistant", "content": "Once"}], **flags}
    assert "continue_final_message" not in inputs_of(input=[said, {"role": "user", "content": "And?"}])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "message item needs role and content"),
        ({"type": "web_search_call"}, "'web_search_call' are not supported"),
        ({"role": "tool", "content": ""}, "role must be one of"),
        ({"role": "user", "content": 7}, "Expected"),
        ({"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}, "'input_file' is not supported"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}, "needs an image_url"),
        ({"type": "function_call", "name": "now"}, "needs call_id and arguments"),
        ({"type": "function_call_output", "output": "x"}, "needs call_id"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "xyz"}, "encrypted"),
        ({"type": "item_reference", "id": "msg_unknown"}, "not stored here"),
        ({"type": "item_reference"}, "needs id"),
        (7, "Expected"),
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_bad_item_is_named(item, message, is_long):
    before = {"role": "user", "content": "x" * 5000 if is_long else "x"}
    with pytest.raises(InvalidInput) as raised:
        found = parsed(input=[before, item])
        history.continued([], found.request.items, {})
    assert message in raised.value.message
    assert raised.value.param in ("input", "input[1]", "input[1].content", "input[1].content[0]")


def test_empty_or_missing_input_is_refused():
    for body, message in (({"input": []}, "empty"), ({"input": None}, "missing")):
        found = refusal(**body)
        assert (found.param, message in found.message) == ("input", True)
    assert parsed(input=None, previous_response_id="resp_1").request.items == []


def test_functions_become_chat_tools():
    found = inputs_of(tools=[WEATHER | {"description": "of a place", "strict": True}, NOW | {"parameters": None}])
    weather = {"name": "weather", "description": "of a place", "strict": True, "parameters": {"type": "object"}}
    assert found["tools"] == [{"type": "function", "function": weather}, CHAT_NOW]
    assert "tool_choice" not in found


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "now"}, CHAT_NOW),
        (None, None),
    ],
)
def test_tool_choice(choice, expected):
    assert inputs_of(tools=[NOW], tool_choice=choice).get("tool_choice") == expected


def test_allowed_tools_are_the_only_ones():
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [NOW]}
    found = inputs_of(tools=[WEATHER, NOW], tool_choice=allowed)
    assert (found["tools"], found["tool_choice"]) == ([CHAT_NOW], "required")


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_without_tools_there_is_nothing_to_choose(choice):
    assert set(inputs_of(tools=[], tool_choice=choice, parallel_tool_calls=True)) == {"messages"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "'web_search'"),
        ({"tools": [NOW, {"type": "mcp", "server_label": "x"}]}, "tools[1]", "'mcp'"),
        ({"tools": [{"type": "function"}]}, "tools[0]", "needs a name"),
        ({"tools": [NOW | {"parameters": []}]}, "tools[0].parameters", "Expected `object"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": {"type": "function", "name": "x"}, "tools": [NOW]}, "tool_choice", "'x'"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}, "tools": [NOW]}, "tool_choice", "'mcp'"),
        ({"tool_choice": "always", "tools": [NOW]}, "tool_choice", "none, auto, required"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "no", "tools": []}}, "tool_choice", "mode"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [WEATHER]}}, "tool_choice", "'weather'"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format", "needs name and schema"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "xml"),
        ({"temperature": "warm"}, "temperature", "Expected"),
        ({"max_output_tokens": 1.5}, "max_output_tokens", "Expected"),
        ({"top_logprobs": -1}, "top_logprobs", ">= 0"),
        ({"truncation": "left"}, "truncation", "left"),
        ({"include": ["everything"]}, "include", "'everything'"),
        ({"metadata": {"a": 1}}, "metadata[...]", "Expected"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "16"),
        ({"background": True, "store": False}, "background", "store"),
        ({"stream": "yes"}, "stream", "Expected"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "not supported"),
        ({"moderation": {"model": "x"}}, "moderation", "not supported"),
        ({"instructions": ["a"]}, "instructions", "Expected"),
    ],
)
def test_what_cant_be_honoured_is_refused(body, param, message):
    found = refusal(**body)
    assert found.param == param
    assert message in found.message


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(InvalidInput):
        parse(inputs.parse_body(b'{"input": [{"role": "user", "content": "\\ud800"}]}'))
    with pytest.raises(InvalidInput) as raised:
        parse(inputs.parse_body(b'{"input": [{"role": "user", "content": "\\ud800%s"}]}' % (b"x" * 5000)))
    assert raised.value.param == "body"


def test_options_have_vllms_names():
    json_schema = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
    found = inputs_of(
        max_output_tokens=20,
        temperature=0.5,
        top_p=1,
        reasoning={"effort": "low"},
        text={"format": json_schema},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        parallel_tool_calls=False,
        truncation="auto",
        top_k=5,
        stop=["x"],
        seed=7,
    )
    del found["messages"]
    assert found == {
        "max_tokens": 20,
        "temperature": 0.5,
        "top_p": 1,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        "logprobs": True,
        "top_logprobs": 2,
        "parallel_tool_calls": False,
        "truncate_prompt_tokens": -1,
        "truncation_side": "left",
        "top_k": 5,
        "stop": ["x"],
        "seed": 7,
    }


def test_json_object():
    assert inputs_of(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}


NO_OPS = {
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}, "verbosity": None},
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "top_p": None,
    "max_output_tokens": None,
    "top_logprobs": 0,
    "include": [],
    "truncation": "disabled",
    "metadata": {},
    "store": True,
    "stream": None,
    "background": False,
    "previous_response_id": None,
    "user": None,
    "conversation": None,
    "presence_penalty": 0,
    "stop": [],
    "logit_bias": {},
    "priority": 0,
}


@pytest.mark.parametrize("body", [NO_OPS, dict.fromkeys(NO_OPS)])
def test_values_that_change_nothing_change_nothing(body):
    assert set(inputs_of(**body)) == {"messages"}
    assert parsed(**body).ignored == []


def test_fields_without_effect_are_named():
    found = parsed(
        user="me",
        safety_identifier="x",
        prompt_cache_key="y",
        service_tier="flex",
        max_tool_calls=3,
        text={"verbosity": "low"},
        reasoning={"summary": "auto"},
        include=["reasoning.encrypted_content", "file_search_call.results"],
        top_logprobs=3,
        unheard_of={"a": 1},
        stream_options=None,
        metadata={"a": "b"},
    )
    assert sorted(found.ignored) == [
        "include.reasoning.encrypted_content",
        "max_tool_calls",
        "prompt_cache_key",
        "reasoning.summary",
        "safety_identifier",
        "service_tier",
        "text.verbosity",
        "top_logprobs",
        "unheard_of",
        "user",
    ]
    assert set(chat_inputs(found, found.request.items)) == {"messages"}


@pytest.mark.parametrize(
    ("param", "expected"),
    [
        ("messages", "input"),
        ("messages[2].content", "input"),
        ("max_tokens", "max_output_tokens"),
        ("response_format.json_schema", "text.format.json_schema"),
        ("temperature", "temperature"),
        (None, None),
    ],
)
def test_errors_name_the_requests_own_fields(param, expected):
    assert own_param(param) == expected


# Conversations that earlier responses hold.

ASKED = Item(role="user", content="Hi", id=f"msg_{GENERATION}_i0")
SAID = Item(role="assistant", content="Hello", id=f"msg_{GENERATION}_0", status="completed")
CALL = Item(type="function_call", call_id="c", name="now", arguments="{}", id=f"fc_{GENERATION}_1", status="completed")
CUT = Item(type="function_call", call_id="d", name="now", arguments="{", id=f"fc_{GENERATION}_2", status="incomplete")


def test_conversation_goes_on_without_calls_that_were_cut():
    new = [Item(role="user", content="And?")]
    before = history.answered([ASKED], [SAID, CALL, CUT])
    assert history.continued(before, new, {}) == [ASKED, SAID, CALL, *new]


def test_reference_stands_for_its_item():
    new = [Item(id=SAID.id), Item(type="item_reference", id=CALL.id), Item(role="user", content="And?")]
    assert [item.type for item in new] == ["item_reference", "item_reference", "message"]
    assert history.references(new) == {SAID.id, CALL.id}
    assert history.continued([], new, {SAID.id: SAID, CALL.id: CALL}) == [SAID, CALL, new[-1]]


def test_reference_to_what_is_there_already_adds_nothing():
    for found in ({}, {SAID.id: SAID}):
        assert history.continued([ASKED, SAID], [Item(id=SAID.id)], found) == [ASKED, SAID]


def test_ids_tell_where_an_item_is():
    items = [Item(role="user", content="Hi"), CALL, Item(type="function_call_output", call_id="c", output="noon")]
    ids = [item.id for item in history.with_ids(items, GENERATION)]
    assert ids == [f"msg_{GENERATION}_i0", CALL.id, f"fco_{GENERATION}_i2"]
    assert [history.generation_with(item_id) for item_id in ids] == [GENERATION] * 3
    assert [history.generation_with(item_id) for item_id in ("msg_1", f"msg_{GENERATION}")] == [None, None]


@pytest.mark.parametrize(
    ("response_id", "expected"),
    [(f"resp_{GENERATION}", GENERATION), (GENERATION, None), ("resp_x", None), (f"resp_{GENERATION}0", None)],
)
def test_generation_of_a_response(response_id, expected):
    assert history.generation_of(response_id) == expected


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "Hi"},
        {"role": "developer", "content": [{"type": "input_text", "text": "Hi"}]},
        {"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example", "detail": "auto"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"type": "function_call", "call_id": "c", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "noon"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "noon"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm"}]},
    ],
)
def test_listed_item_is_of_openais_type_and_survives_being_sent_back(item):
    (found,) = history.with_ids(parsed(input=[item]).request.items, GENERATION)
    kept = msgspec.json.decode(encode_json(found), type=Item)
    assert kept == found
    encoded = encode_json(listed(kept))
    validated(ResponseItem, encoded)
    again = json.loads(encoded)
    assert messages_of(again) == messages_of(item)
    assert listed(msgspec.json.decode(encoded, type=Item)) == again
    sent_parts = item.get("content")
    if isinstance(sent_parts, list):
        assert [part["type"] for part in again["content"]] == [part["type"] for part in sent_parts]
