"""OpenAI's Python client, unmodified: each test is one call of `harness/sdk_clients/openai_calls.py` and its answer.

The demo model is forced where it would not choose by itself; what it says is its own, the same in each run.
"""

import json

import pytest

CITIES = ("Paris", "Rome")


def assert_whole(answer, finish_reason="stop"):
    """A chat completion of one choice; returns its message."""
    [choice] = answer["choices"]
    usage = answer["usage"]
    assert (answer["object"], choice["index"], choice["finish_reason"]) == ("chat.completion", 0, finish_reason)
    assert answer["id"].startswith("chatcmpl-") and answer["model"] and answer["created"] > 0
    assert choice["message"]["role"] == "assistant"
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0
    return choice["message"]


def assert_calls(message, name="get_weather"):
    """A message that calls one tool, with arguments of its schema."""
    [call] = message["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", name) and call["id"]
    assert json.loads(call["function"]["arguments"])["city"] in CITIES


def assert_weather(weather):
    """An object of the schema `questions.Weather`."""
    assert set(weather) == {"city", "degrees", "rain"}
    assert weather["city"] in CITIES and 0 <= weather["degrees"] <= 9 and isinstance(weather["rain"], bool)


def text_of(chunks):
    return "".join(choice["delta"]["content"] or "" for chunk in chunks for choice in chunk["choices"])


def test_chat(llm, sdk):
    answer = sdk("openai_calls.chat", llm)
    assert "Paris" in assert_whole(answer)["content"]
    assert answer["_request_id"].startswith("req_")


def test_chat_stream(llm, sdk):
    whole = sdk("openai_calls.chat", llm)
    *chunks, last = sdk("openai_calls.chat_stream", llm)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    # The client sees tokens as they come, not a lump at the end.
    assert len([chunk for chunk in chunks if chunk["choices"][0]["delta"]["content"]]) > 3


def test_chat_stream_that_the_client_puts_together(llm, sdk):
    made = sdk("openai_calls.chat_stream_helper", llm)
    assert made["answer"]["choices"][0]["message"]["content"] == assert_whole(sdk("openai_calls.chat", llm))["content"]
    assert made["events"][-1] == "content.done"


def test_chats_at_once(llm, sdk):
    answers = sdk("openai_calls.chat_async", llm)
    assert len({answer["id"] for answer in answers}) == 3
    assert len({assert_whole(answer)["content"] for answer in answers}) == 1


def test_second_turn_takes_the_first_answer_back(llm, sdk):
    second = sdk("openai_calls.chat_second_turn", llm)
    assert {"refusal", "annotations", "audio", "function_call", "tool_calls"} <= set(second["sent"])
    assert "Rome" in assert_whole(second["answer"])["content"]
    as_object = sdk("openai_calls.chat_second_turn_as_object", llm)
    assert assert_whole(as_object)["content"] == assert_whole(second["answer"])["content"]


def test_chat_with_content_in_parts_and_a_developer(llm, sdk):
    assert "Paris" in assert_whole(sdk("openai_calls.chat_parts", llm))["content"]


def test_image_for_a_model_that_takes_text(llm, sdk):
    error = sdk("openai_calls.chat_image", llm)
    assert (error["class"], error["status"], error["type"]) == ("BadRequestError", 400, "invalid_request_error")
    assert "multimodal" in error["message"]


def test_values_that_change_nothing(llm, sdk):
    assert assert_whole(sdk("openai_calls.chat_no_ops", llm)) == assert_whole(sdk("openai_calls.chat", llm))


def test_ignored_fields_are_named(llm, sdk):
    headers = sdk("openai_calls.ignored_fields", llm)
    assert set(headers["x-everstream-ignored"].split(", ")) == {"never_heard_of", "prompt_cache_key"}


def test_log_probabilities(llm, sdk):
    answer = sdk("openai_calls.chat_logprobs", llm)
    tokens = answer["choices"][0]["logprobs"]["content"]
    # The last token ends the answer, and has no text.
    assert "".join(token["token"] for token in tokens[:-1]) == assert_whole(answer)["content"]
    assert all(len(token["top_logprobs"]) == 2 and token["logprob"] <= 0 for token in tokens)


def test_several_choices(llm, sdk):
    answer = sdk("openai_calls.chat_choices", llm)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert all(choice["finish_reason"] in ("stop", "length") for choice in answer["choices"])
    assert answer["choices"][0]["message"]["content"] != answer["choices"][1]["message"]["content"]


def test_stop_string(llm, sdk):
    assert assert_whole(sdk("openai_calls.chat_stop", llm))["content"] == "The "


# Tools and structured output.


@pytest.mark.parametrize(("choice", "finish_reason"), [("named", "stop"), ("required", "tool_calls")])
def test_tool_round(llm, sdk, choice, finish_reason):
    """For a named tool the reason is `stop`, in OpenAI's API and in vLLM."""
    called = sdk(f"openai_tools_calls.tools_{choice}", llm)
    assert_calls(assert_whole(called["first"], finish_reason))
    assert assert_whole(called["second"], "length")["content"]


def test_tools_that_the_model_does_not_use(llm, sdk):
    message = assert_whole(sdk("openai_tools_calls.tools_auto", llm))
    assert "Paris" in message["content"] and not message["tool_calls"]


def test_tool_stream(llm, sdk):
    chunks = sdk("openai_tools_calls.tools_stream", llm)
    parts = [call for chunk in chunks for call in chunk["choices"][0]["delta"]["tool_calls"] or ()]
    assert (parts[0]["function"]["name"], parts[0]["type"]) == ("get_weather", "function") and parts[0]["id"]
    assert {part["index"] for part in parts} == {0}
    assert json.loads("".join(part["function"]["arguments"] or "" for part in parts))["city"] in CITIES


def test_tool_stream_that_the_client_puts_together(llm, sdk):
    made = sdk("openai_tools_calls.tools_stream_helper", llm)
    [choice] = made["answer"]["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"]["parsed_arguments"]["city"] in CITIES
    assert made["events"][-1] == "tool_calls.function.arguments.done"


def test_json_schema(llm, sdk):
    content = assert_whole(sdk("openai_tools_calls.json_schema", llm))["content"]
    assert json.loads(content)["city"] in CITIES


def test_json_object(llm, sdk):
    """The model goes on until it must stop; whatever it says begins an object."""
    [choice] = sdk("openai_tools_calls.json_object", llm)["choices"]
    assert choice["message"]["content"].lstrip().startswith("{")


def test_pydantic_class(llm, sdk):
    made = sdk("openai_tools_calls.parse", llm)
    assert_weather(made["parsed"])
    assert json.loads(assert_whole(made["answer"])["content"]) == made["parsed"]


def test_structured_choice(llm, sdk):
    assert assert_whole(sdk("openai_tools_calls.structured_choice", llm))["content"] in ("sunny", "rainy")


# Completions.


def test_completion(llm, sdk):
    whole = sdk("openai_calls.completion", llm)
    [choice] = whole["choices"]
    assert (whole["object"], choice["finish_reason"]) == ("text_completion", "length")
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (4, 16)
    *chunks, last = sdk("openai_calls.completion_stream", llm)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert (chunks[-1]["choices"][0]["finish_reason"], last["usage"]) == ("length", whole["usage"])


def test_several_prompts(llm, sdk):
    answers = sdk("openai_calls.completion_prompts", llm)
    texts = answers["texts"]["choices"]
    assert [choice["index"] for choice in texts] == [0, 1]
    assert texts[0]["text"] == sdk("openai_calls.completion", llm)["choices"][0]["text"]
    assert answers["tokens"]["usage"]["prompt_tokens"] == 5


def test_log_probabilities_of_the_prompt(llm, sdk):
    [choice] = sdk("openai_calls.completion_logprobs", llm)["choices"]
    assert choice["text"].startswith("Once upon a time")
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"][0] is None and len(choice["logprobs"]["top_logprobs"][1]) >= 2


# Models, errors, request ids, retries.


def test_models(llm, sdk):
    models = sdk("openai_calls.models", llm)
    [model] = models["list"]
    assert (model["id"], model["object"], model["max_model_len"]) == (llm.settings.model_name, "model", 2048)
    assert {name: models["one"][name] for name in model} == model


@pytest.fixture(scope="module")
def errors(llm, sdk):
    return sdk("openai_calls.errors", llm)


@pytest.mark.parametrize("request_name", ["unknown model", "unknown model of a completion", "unknown model looked up"])
def test_unknown_model(errors, request_name):
    error = errors[request_name]
    assert (error["class"], error["status"], error["code"]) == ("NotFoundError", 404, "model_not_found")
    assert error["param"] == "model" and "other" in error["message"] and error["request_id"]


@pytest.mark.parametrize("request_name", ["too long", "too long completion", "too long stream"])
def test_too_long_prompt(errors, request_name):
    error = errors[request_name]
    assert (error["class"], error["status"], error["code"]) == ("BadRequestError", 400, "context_length_exceeded")
    assert "maximum context length is 2048 tokens" in error["message"]


@pytest.mark.parametrize(
    ("request_name", "param"),
    [("bad temperature", "temperature"), ("no messages", "messages"), ("bad role", "messages")],
)
def test_invalid_field(errors, request_name, param):
    error = errors[request_name]
    assert (error["class"], error["status"], error["type"]) == ("BadRequestError", 400, "invalid_request_error")
    assert error["param"].startswith(param)


@pytest.mark.parametrize("request_name", ["embeddings", "images"])
def test_what_is_not_served(errors, request_name):
    error = errors[request_name]
    assert (error["class"], error["status"], error["type"]) == ("NotFoundError", 404, "not_found_error")


def test_stream_that_fails(llm, sdk):
    """The client raises; it does not take the end of the stream for the end of the answer."""
    failure = sdk("openai_calls.stopped_stream", llm)
    assert (failure["class"], failure["code"]) == ("APIError", "cancelled")
    assert len(failure["chunks"]) >= 3 and "stopped" in failure["message"]


def test_request_id(llm, sdk):
    answered = sdk("openai_calls.headers", llm)
    assert answered["request_id"] == "my-own-id"
    assert float(answered["headers"]["openai-processing-ms"]) > 0 and answered["headers"]["openai-version"]


def test_idempotency_key(llm, sdk):
    answers = sdk("openai_calls.idempotent", llm)
    first, second = ({**answers[name], "_request_id": None} for name in ("first", "second"))
    assert first == second and answers["first"]["_request_id"] != answers["second"]["_request_id"]
    assert (answers["other"]["class"], answers["other"]["status"]) == ("ConflictError", 409)


def test_idempotency_key_of_a_stream(llm, sdk):
    first, second = sdk("openai_calls.idempotent_stream", llm)
    assert first == second
