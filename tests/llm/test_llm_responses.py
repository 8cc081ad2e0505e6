"""The Responses API on vLLM: its parsers' outputs as OpenAI's events, of OpenAI's types."""

import json

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from harness.openai_types import validated

SCHEMA = {
    "type": "object",
    "properties": {"sky": {"enum": ["blue", "grey"]}},
    "required": ["sky"],
    "additionalProperties": False,
}
PLACE = {"type": "object", "properties": {"place": {"enum": ["Rome", "Oslo"]}}, "required": ["place"]}
WEATHER = {"type": "function", "name": "weather", "description": "of a place", "parameters": PLACE, "strict": True}


def both(client, **asked):
    """The whole response, and what a stream ends with. Every event is checked."""
    whole = client.responses.create(temperature=0, **asked)
    validated(Response, whole.to_json().encode())
    events = list(client.responses.create(temperature=0, stream=True, **asked))
    last = -1
    for event in events:
        validated(ResponseStreamEvent, event.to_json().encode())
        # A heartbeat repeats the last number.
        assert event.sequence_number == last + (last < 1 or event.type != "response.in_progress")
        last = event.sequence_number
    return whole, events[-1].response


def said(response):
    """Without ids."""
    texts = [part.text for item in response.output for part in getattr(item, "content", None) or ()]
    # vLLM writes them anew where it does not stream them.
    calls = [(item.name, json.loads(item.arguments)) for item in response.output if item.type == "function_call"]
    return response.status, texts, calls, response.usage


def test_text(client, model):
    whole, streamed = both(client, model=model, input="Why is the sky blue?", max_output_tokens=20)
    assert said(whole) == said(streamed)
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert whole.usage.output_tokens == 20


def test_log_probabilities(client, model):
    whole, streamed = both(
        client,
        model=model,
        input="Why is the sky blue?",
        max_output_tokens=5,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
    )
    assert said(whole) == said(streamed)
    (part,), (streamed_part,) = whole.output[0].content, streamed.output[0].content
    assert "".join(logprob.token for logprob in part.logprobs) == part.text
    assert [len(logprob.top_logprobs) for logprob in part.logprobs] == [2] * 5
    assert [logprob.token for logprob in streamed_part.logprobs] == [logprob.token for logprob in part.logprobs]


def test_json_schema(client, model):
    text = {"format": {"type": "json_schema", "name": "sky", "schema": SCHEMA, "strict": True}}
    whole, streamed = both(client, model=model, input="What colour is the sky?", text=text, max_output_tokens=30)
    assert said(whole) == said(streamed)
    assert json.loads(whole.output_text)["sky"] in ("blue", "grey")


def test_function_call(client, model):
    asked = [{"role": "user", "content": "How is the weather in Rome?"}]
    whole, streamed = both(
        client, model=model, input=asked, tools=[WEATHER], tool_choice="required", max_output_tokens=60
    )
    assert said(whole)[:3] == said(streamed)[:3]
    (call,) = (item for item in whole.output if item.type == "function_call")
    assert call.name == "weather"
    assert json.loads(call.arguments)["place"] in ("Rome", "Oslo")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}
    second = client.responses.create(
        model=model, input=[result], previous_response_id=whole.id, tools=[WEATHER], max_output_tokens=5
    )
    again = client.responses.create(
        model=model, input=[*asked, *whole.output, result], tools=[WEATHER], max_output_tokens=5
    )
    assert second.usage.input_tokens == again.usage.input_tokens > whole.usage.input_tokens


def test_conversation_is_in_the_prompt(client, model):
    first = client.responses.create(model=model, input="My name is Ada.", max_output_tokens=5)
    second = client.responses.create(model=model, input="Who am I?", previous_response_id=first.id, max_output_tokens=5)
    alone = client.responses.create(model=model, input="Who am I?", max_output_tokens=5)
    assert second.usage.input_tokens > alone.usage.input_tokens + first.usage.output_tokens


def test_what_vllm_refuses_is_an_error_before_the_stream(client, model):
    with pytest.raises(openai.BadRequestError):
        client.responses.create(
            model=model,
            input="x",
            stream=True,
            tools=[WEATHER | {"parameters": {"type": "nonsense"}}],
            tool_choice="required",
        )


def test_truncation(client, model):
    long = "word " * 4000
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=model, input=long)
    assert (raised.value.code, raised.value.param) == ("context_length_exceeded", "input")
    for limit, most in ((None, 1536), (100, 1948)):
        response = client.responses.create(
            model=model, input=f"{long}Say no.", truncation="auto", max_output_tokens=limit, extra_body={"stop": [" "]}
        )
        assert response.usage.input_tokens == most
