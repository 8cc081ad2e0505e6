"""Answers of vLLM's own OpenAI front end, through all parts, with the real demo model."""

import json
from pathlib import Path

import pytest
import requests

from harness.sse_client import connect, read_all
from harness.stack import wait_for

STORY = {"prompt": "Tell a very long story", "temperature": 0, "ignore_eos": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ASKED = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "temperature": 0, "max_tokens": 60}
HERMES_CALL = r'<tool_call>\n\{"name": "get_weather", "arguments": \{"city": "[A-Z][a-z]{2,8}"\}\}\n</tool_call>'


def test_forced_tool_call_has_the_tools_arguments(client, model):
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        message = (
            client.chat.completions.create(model=model, tools=[WEATHER], tool_choice=choice, **ASKED).choices[0].message
        )
        (call,) = message.tool_calls
        assert call.function.name == "get_weather"
        assert list(json.loads(call.function.arguments)) == ["city"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_tool_call_of_the_models_own_is_parsed(client, model, is_stream):
    """The grammar makes so small a model write what a larger one writes by itself; the parser does not know of it."""
    given = ASKED | {"model": model, "tools": [WEATHER], "extra_body": {"structured_outputs": {"regex": HERMES_CALL}}}
    if is_stream:
        with client.chat.completions.stream(**given) as stream:
            choice = stream.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(**given).choices[0]
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert call.function.name == "get_weather" and list(json.loads(call.function.arguments)) == ["city"]
    assert not choice.message.content


def test_answer_follows_a_schema(client, model):
    schema = {"type": "object", "properties": {"blue": {"type": "boolean"}}, "required": ["blue"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "sky", "schema": schema | {"additionalProperties": False}}}
    answer = client.chat.completions.create(model=model, response_format=wanted, **ASKED).choices[0].message.content
    assert json.loads(answer).keys() == {"blue"}


def test_log_probabilities_compile_nothing(llm, client, model):
    """Compiling stops all streams for many seconds."""
    answer = client.chat.completions.create(model=model, logprobs=True, top_logprobs=1, **ASKED)
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens
    assert not list(Path(llm.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.so"))


def test_refusals_name_the_field(llm):
    """Also for a stream, because its response has not begun when the model refuses."""
    for given, param in (
        ({"tools": [{"type": "function", "function": {"name": 7}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"logit_bias": {"9999999": 1}}, "logit_bias"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"chat_template": "{{ messages }}"}, None),
    ):
        for is_stream in (False, True):
            body = ASKED | given | {"stream": is_stream}
            response = requests.post(f"{llm.url}/v1/chat/completions", json=body, timeout=60)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
        response = requests.post(f"{llm.url}/generations", json=ASKED | given, timeout=60)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text


def test_engine_killed_mid_answer(llm):
    """What can't go on exactly ends and says so. What nobody has seen a part of starts over."""
    streamed = llm.submit(**STORY, max_tokens=1500, logprobs=True, top_logprobs=1)
    counting = llm.submit(**STORY, max_tokens=1500, presence_penalty=0.5)
    whole = llm.submit(**STORY, max_tokens=40, logprobs=True, stream=False, min_tokens=40)
    for generation in (streamed, counting):
        with connect(llm.events_url(generation)) as stream:
            stream.read(until=lambda seen: len(seen.events) > 3)
    wait_for(lambda: llm.running() == 3 or llm.show(whole)["state"] != "running", what="the third answer")
    engine = llm.engines[-1]
    engine.kill()
    llm.start_engine()
    for generation in (streamed, counting):
        end = read_all(llm.events_url(generation))[-1]
        assert (end.type, end.json["code"]) == ("failed", "not_resumable")
    end = read_all(llm.events_url(whole))[-1]
    assert (end.type, end.json["usage"]["completion_tokens"]) == ("done", 40)
