"""Other people's Python clients, unmodified: each test is one call from `harness/sdk_clients` and its answer.

`test_sdk_openai` has OpenAI's own client, which most of these use, and the shapes; here is what they make of them.
"""

import json

import pytest

PARIS = "The capital of France is Paris."
ROME = "The capital of Italy is Rome."
CITIES = ("Paris", "Rome")


def assert_weather(weather):
    """An object of the schema `questions.Weather`."""
    assert set(weather) == {"city", "degrees", "rain"}
    assert weather["city"] in CITIES and 0 <= weather["degrees"] <= 9 and isinstance(weather["rain"], bool)


# langchain-openai.


def assert_message(message, content=PARIS, finish_reason="stop"):
    assert message["content"] == content
    assert message["response_metadata"]["finish_reason"] == finish_reason
    usage = message["usage_metadata"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def assert_tool_call(message):
    [call] = message["tool_calls"]
    assert (call["name"], call["type"], message["invalid_tool_calls"]) == ("get_weather", "tool_call", [])
    assert call["args"]["city"] in CITIES and call["id"]


def test_langchain_chat(llm, sdk):
    assert_message(sdk("langchain_calls.chat", llm))


def test_langchain_chat_stream(llm, sdk):
    chunks = sdk("langchain_calls.chat_stream", llm)
    assert "".join(chunk["content"] for chunk in chunks) == PARIS
    assert "stop" in [chunk["response_metadata"].get("finish_reason") for chunk in chunks]


def test_langchain_batch(llm, sdk):
    answers = sdk("langchain_calls.chat_batch", llm)
    assert answers[0] == PARIS and len(answers) == 3 and all(answers)


def test_langchain_second_turn(llm, sdk):
    assert_message(sdk("langchain_calls.second_turn", llm), ROME)


def test_langchain_tool_round(llm, sdk):
    called = sdk("langchain_calls.tools", llm)
    assert_tool_call(called["first"])
    assert called["second"]["content"] and called["second"]["tool_calls"] == []


def test_langchain_tool_stream(llm, sdk):
    message = sdk("langchain_calls.tools_stream", llm)
    assert_tool_call(message)
    assert message["response_metadata"]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("call", ["structured", "structured_by_a_tool"])
def test_langchain_structured_output(llm, sdk, call):
    assert_weather(sdk(f"langchain_calls.{call}", llm))


def test_langchain_structured_stream(llm, sdk):
    assert_weather(sdk("langchain_calls.structured_stream", llm)[-1])


def test_langchain_completions(llm, sdk):
    result = sdk("langchain_calls.completion", llm)
    [[first], [second]] = result["generations"]
    assert first["text"] and first["generation_info"]["finish_reason"] == "length"
    assert second["generation_info"]["finish_reason"] == "stop"
    assert result["llm_output"]["token_usage"]["prompt_tokens"] == 11
    assert "".join(sdk("langchain_calls.completion_stream", llm)) == first["text"]


def test_langchain_responses(llm, sdk):
    message = sdk("langchain_calls.responses", llm)
    assert [part["text"] for part in message["content"]] == [PARIS]
    assert (message["response_metadata"]["status"], message["usage_metadata"]["output_tokens"]) == ("completed", 8)


def test_langchain_responses_stream(llm, sdk):
    chunks = sdk("langchain_calls.responses_stream", llm)
    parts = [part for chunk in chunks for part in chunk["content"]]
    assert "".join(part.get("text", "") for part in parts) == PARIS


def test_langchain_responses_tool_round(llm, sdk):
    called = sdk("langchain_calls.responses_tools", llm)
    assert_tool_call(called["first"])
    assert called["second"]["content"][0]["text"]


def test_langchain_errors(llm, sdk):
    errors = sdk("langchain_calls.errors", llm)
    assert errors["unknown model"] == {"class": "OpenAIModelNotFoundError", "status": 404, "code": "model_not_found"}
    too_long = {"status": 400, "code": "context_length_exceeded"}
    for name in ("too long", "too long stream"):
        assert {field: errors[name][field] for field in too_long} == too_long
    assert (errors["embeddings"]["class"], errors["embeddings"]["status"]) == ("NotFoundError", 404)


# litellm.


def assert_litellm(answer, content=PARIS):
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, "stop")
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("call", ["chat", "chat_hosted_vllm", "chat_async"])
def test_litellm_chat(llm, sdk, call):
    assert_litellm(sdk(f"litellm_calls.{call}", llm))


def test_litellm_chat_stream(llm, sdk):
    chunks = sdk("litellm_calls.chat_stream", llm)
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["delta"]["content"] or "" for choice in choices) == PARIS
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_litellm_second_turn(llm, sdk):
    assert_litellm(sdk("litellm_calls.second_turn", llm), ROME)


def test_litellm_tool_round(llm, sdk):
    called = sdk("litellm_calls.tools", llm)
    [call] = called["first"]["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert called["second"]["choices"][0]["message"]["content"]


def test_litellm_tool_stream(llm, sdk):
    [choice] = sdk("litellm_calls.tools_stream", llm)["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (call["function"]["name"], choice["finish_reason"]) == ("get_weather", "tool_calls")


def test_litellm_structured_output(llm, sdk):
    [choice] = sdk("litellm_calls.structured", llm)["choices"]
    assert_weather(json.loads(choice["message"]["content"]))


def test_litellm_completion(llm, sdk):
    answer = sdk("litellm_calls.completion", llm)
    assert answer["choices"][0]["text"] and answer["usage"]["completion_tokens"] == 16


def test_litellm_responses(llm, sdk):
    answer = sdk("litellm_calls.responses", llm)
    [message] = answer["output"]
    assert (message["content"][0]["text"], answer["status"]) == (PARIS, "completed")


def test_litellm_errors(llm, sdk):
    errors = sdk("litellm_calls.errors", llm)
    for name in ("too long", "too long stream", "too long for hosted_vllm"):
        assert errors[name] == {"class": "ContextWindowExceededError", "status": 400}
    for name in ("unknown model", "embeddings"):
        assert errors[name] == {"class": "NotFoundError", "status": 404}


# llm.


def test_llm_chat(llm, sdk):
    answer = sdk("llm_calls.chat", llm)
    assert (answer["text"], answer["output"]) == (PARIS, 8)


def test_llm_chat_stream(llm, sdk):
    answer = sdk("llm_calls.chat_stream", llm)
    assert "".join(answer["chunks"]) == answer["text"] == PARIS
    assert len(answer["chunks"]) > 1 and answer["output"] == 8


def test_llm_second_turn(llm, sdk):
    assert sdk("llm_calls.second_turn", llm)["text"] == ROME


def test_llm_schema(llm, sdk):
    assert_weather(sdk("llm_calls.structured", llm))


def test_llm_with_tools(llm, sdk):
    """The client can't force a call, and the model makes none."""
    [answer] = sdk("llm_calls.tools", llm)
    assert answer["text"]


def test_llm_completion(llm, sdk):
    assert sdk("llm_calls.completion", llm)["text"]


def test_llm_too_long(llm, sdk):
    assert sdk("llm_calls.too_long", llm) == {"class": "BadRequestError", "code": "context_length_exceeded"}


# instructor, whose openai is an older one.


@pytest.mark.parametrize("call", ["tools", "json_schema"])
def test_instructor(llm, sdk, call):
    assert_weather(sdk(f"instructor_calls.{call}", llm))


def test_instructor_partial(llm, sdk):
    objects = sdk("instructor_calls.partial", llm)
    assert_weather(objects[-1])
    assert objects[0]["city"] is None and len(objects) > 3


# pydantic-ai.


def test_pydantic_ai_chat(llm, sdk):
    answer = sdk("pydantic_ai_calls.chat", llm)
    assert (answer["output"], answer["usage"][1]) == (PARIS, 8)


def test_pydantic_ai_chat_stream(llm, sdk):
    answer = sdk("pydantic_ai_calls.chat_stream", llm)
    assert "".join(answer["chunks"]) == answer["whole"] == PARIS and len(answer["chunks"]) > 1


@pytest.mark.parametrize("call", ["second_turn", "responses", "messages"])
def test_pydantic_ai_second_turn(llm, sdk, call):
    """Of each API that it speaks."""
    answer = sdk(f"pydantic_ai_calls.{call}", llm)
    assert (answer["output"], answer["parts"]) == (ROME, ["user-prompt", "text"] * 2)


@pytest.mark.parametrize("call", ["structured", "structured_by_a_tool"])
def test_pydantic_ai_structured_output(llm, sdk, call):
    assert_weather(sdk(f"pydantic_ai_calls.{call}", llm)["output"])


def test_pydantic_ai_tool_round(llm, sdk):
    answer = sdk("pydantic_ai_calls.tools", llm)
    assert answer["parts"] == ["user-prompt", "tool-call", "tool-return", "text"]


def test_pydantic_ai_errors(llm, sdk):
    errors = sdk("pydantic_ai_calls.errors", llm)
    assert (errors["unknown model"]["status"], errors["unknown model"]["body"]["code"]) == (404, "model_not_found")
    assert (errors["too long"]["status"], errors["too long"]["body"]["code"]) == (400, "context_length_exceeded")
