"""What the Messages API asks of the model, beside what vLLM's own server would ask."""

import json

import pytest

import input_schema
from everstream.apis.anthropic import requests
from everstream.contract.inputs import from_json, parse_body
from everstream.contract.schema import parse_schema

pytestmark = pytest.mark.usefixtures("vllm")

SCHEMA = parse_schema(input_schema.INPUT_SCHEMA, [])
HELLO = {"role": "user", "content": "Hello"}
HI = {"role": "assistant", "content": "Hi"}
TOOL = {"name": "weather", "description": "Of a city", "input_schema": {"properties": {"city": {"type": "string"}}}}
PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aWk="}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris", "days": [1, 2]}}
FIELDS = (
    "messages",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "thinking_token_budget",
    "response_format",
    "cache_salt",
    "chat_template_kwargs",
)


def asked_here(body):
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    given = from_json(requests.messages(parse_body(json.dumps(body).encode()), SCHEMA).inputs, SCHEMA, 100_000)
    input_schema.check_inputs(given)
    return ChatCompletionRequest(**{**given, "messages": json.loads(given["messages"])})


def asked_by_vllm(body):
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from vllm.entrypoints.anthropic.serving import AnthropicServingMessages

    return AnthropicServingMessages.to_chat_completion_request(AnthropicMessagesRequest(**body))


def fields(request):
    """Those that are set."""
    given = {name: value for name, value in request.model_dump(mode="json").items() if name in FIELDS}
    if not given["tools"] and given["tool_choice"] == "none":
        # vLLM's own default.
        del given["tool_choice"]
    for message in given["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return {name: value for name, value in given.items() if value not in (None, [])}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"temperature": 0, "top_p": 0.5, "top_k": 3, "stop_sequences": ["a", "b"], "cache_salt": "s"},
        {"system": "Be brief."},
        {"system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}]},
        {
            "messages": [
                HELLO,
                {"role": "assistant", "content": "Hi"},
                {"role": "system", "content": "Be brief."},
                HELLO,
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "!"}]}]},
        {"messages": [{"role": "user", "content": [PIXEL, {"type": "text", "text": "What is this?"}]}]},
        {
            "messages": [
                HELLO,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                        {"type": "redacted_thinking", "data": "d"},
                        {"type": "text", "text": "Let me look."},
                        CALL,
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "toolu_1",
                            "content": [{"type": "text", "text": "18"}, {"type": "text", "text": "19"}],
                        },
                        {"type": "text", "text": "So?"},
                    ],
                },
            ],
            "tools": [TOOL],
        },
        {"tools": [TOOL], "tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "none"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        {"thinking": {"type": "disabled"}},
        {"output_config": {"effort": "low"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_model_is_asked_the_same(change):
    body = {"model": "m", "max_tokens": 2000, "messages": [HELLO], **change}
    assert fields(asked_here(body)) == fields(asked_by_vllm(body))


def test_thinking_is_asked_for_in_the_template_too():
    thinking = {"type": "enabled", "budget_tokens": 1024}
    body = {"model": "m", "max_tokens": 2000, "messages": [HELLO], "thinking": thinking}
    there = fields(asked_by_vllm(body))
    assert fields(asked_here(body)) == {**there, "chat_template_kwargs": {"enable_thinking": True}}


def test_a_schema_has_another_name():
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}}
    config = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    body = {"model": "m", "max_tokens": 2000, "messages": [HELLO], **config}
    here, there = asked_here(body).response_format, asked_by_vllm(body).response_format
    assert here.json_schema.json_schema == there.json_schema.json_schema == schema


def test_an_assistants_last_words_are_continued():
    """As in Anthropic's API. vLLM's server has the model begin another message."""
    body = {"model": "m", "max_tokens": 2000, "messages": [HELLO, HI]}
    here = asked_here(body)
    assert (here.continue_final_message, here.add_generation_prompt) == (True, False)
