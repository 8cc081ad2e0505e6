"""Other people's clients from npm, unmodified: each test is one call from `harness/sdk_clients/node`."""

import json

import pytest

PARIS = "The capital of France is Paris."
ROME = "The capital of Italy is Rome."
CITIES = ("Paris", "Rome")
KINDS = ["responses", "chat", "compatible"]
"""The ways in which the AI SDK asks for chats; `responses` is the default of @ai-sdk/openai."""


def assert_report(report):
    assert report["city"] in CITIES and isinstance(report["rain"], bool)


# openai.


def assert_whole(answer, content=PARIS):
    [choice] = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, "stop")


def assert_calls(answer):
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["city"] in CITIES


def test_openai_chat(llm, sdk):
    answer = sdk("node.openaiChat", llm)
    assert_whole(answer)
    assert answer["usage"]["completion_tokens"] == 8 and answer["request_id"].startswith("req_")


def test_openai_chat_stream(llm, sdk):
    *chunks, last = sdk("node.openaiChatStream", llm)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == PARIS
    assert (chunks[-1]["choices"][0]["finish_reason"], last["usage"]["completion_tokens"]) == ("stop", 8)
    assert_whole(sdk("node.openaiChatStreamHelper", llm))


def test_openai_second_turn(llm, sdk):
    assert_whole(sdk("node.openaiSecondTurn", llm), ROME)


def test_openai_tool_round(llm, sdk):
    called = sdk("node.openaiTools", llm)
    assert_calls(called["first"])
    assert called["second"]["choices"][0]["message"]["content"]


def test_openai_tool_stream(llm, sdk):
    answer = sdk("node.openaiToolsStream", llm)
    assert_calls(answer)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_openai_parse(llm, sdk):
    assert_report(sdk("node.openaiParse", llm)["choices"][0]["message"]["parsed"])


def test_openai_completion(llm, sdk):
    answer = sdk("node.openaiCompletion", llm)
    assert answer["choices"][0]["text"] and answer["usage"]["completion_tokens"] == 16


def test_openai_response(llm, sdk):
    answer = sdk("node.openaiResponse", llm)
    assert (answer["output_text"], answer["status"]) == (PARIS, "completed")


def test_openai_response_stream(llm, sdk):
    events = sdk("node.openaiResponseStream", llm)
    # A repeated `response.in_progress` is a heartbeat, with the number of the last event.
    numbered = [event for n, event in enumerate(events) if n < 2 or event["type"] != "response.in_progress"]
    assert [event["sequence_number"] for event in numbered] == list(range(len(numbered)))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == PARIS and len(deltas) > 1
    assert (events[0]["type"], events[-1]["type"]) == ("response.created", "response.completed")


def test_openai_response_parse(llm, sdk):
    assert_report(sdk("node.openaiResponseParse", llm)["output_parsed"])


def test_openai_idempotency_key(llm, sdk):
    answers = sdk("node.openaiIdempotent", llm)
    assert answers["first"] == answers["second"]
    assert (answers["other"]["class"], answers["other"]["status"]) == ("ConflictError", 409)


def test_openai_errors(llm, sdk):
    errors = sdk("node.openaiErrors", llm)
    unknown, too_long, embeddings = errors["unknown model"], errors["too long"], errors["embeddings"]
    assert (unknown["class"], unknown["code"], unknown["param"]) == ("NotFoundError", "model_not_found", "model")
    assert (too_long["class"], too_long["code"]) == ("BadRequestError", "context_length_exceeded")
    assert (embeddings["class"], embeddings["status"]) == ("NotFoundError", 404)
    assert all(error["request_id"] for error in errors.values())


# The AI SDK.


@pytest.mark.parametrize("kind", KINDS)
def test_generate_text(llm, sdk, kind):
    answer = sdk("node.aiGenerateText", llm, kind)
    assert (answer["text"], answer["finishReason"]) == (PARIS, "stop")
    assert (answer["usage"]["outputTokens"], answer["warnings"]) == (8, [])


@pytest.mark.parametrize("kind", KINDS)
def test_stream_text(llm, sdk, kind):
    answer = sdk("node.aiStreamText", llm, kind)
    assert (answer["text"], answer["finishReason"], answer["errors"]) == (PARIS, "stop", [])
    assert answer["usage"]["outputTokens"] == 8 and answer["kinds"].count("text-delta") > 1


@pytest.mark.parametrize("kind", ["completion", "compatibleCompletion"])
def test_completion(llm, sdk, kind):
    answer, stream = sdk("node.aiGenerateText", llm, kind), sdk("node.aiStreamText", llm, kind)
    assert (answer["text"], answer["finishReason"]) == (stream["text"], stream["finishReason"])
    assert answer["usage"]["outputTokens"] == stream["usage"]["outputTokens"] == 16


@pytest.mark.parametrize("kind", KINDS)
def test_second_turn(llm, sdk, kind):
    """With `responses`, the first answer goes back as a reference to its id."""
    assert sdk("node.aiSecondTurn", llm, kind) == {"text": ROME, "finishReason": "stop"}


@pytest.mark.parametrize("call", ["aiGenerateObject", "aiOutputObject"])
@pytest.mark.parametrize("kind", KINDS)
def test_generate_object(llm, sdk, kind, call):
    answer = sdk(f"node.{call}", llm, kind)
    assert_report(answer["object"])
    assert answer["finishReason"] == "stop"


def test_stream_object(llm, sdk):
    answer = sdk("node.aiStreamObject", llm, "responses")
    assert_report(answer["object"])
    assert len(answer["partial"]) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_tool_round(llm, sdk, kind):
    first, second = sdk("node.aiTools", llm, kind)
    [call], [result] = first["toolCalls"], first["toolResults"]
    assert (call["toolName"], first["finishReason"]) == ("get_weather", "tool-calls")
    assert call["input"]["city"] in CITIES and result["toolCallId"] == call["toolCallId"]
    assert second["text"] and second["toolCalls"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_tool_stream(llm, sdk, kind):
    [call] = sdk("node.aiToolsStream", llm, kind)["calls"]
    assert call["toolName"] == "get_weather" and call["input"]["city"] in CITIES


@pytest.mark.parametrize("kind", KINDS)
def test_errors(llm, sdk, kind):
    errors = sdk("node.aiErrors", llm, kind)
    unknown, too_long = errors["unknown model"], errors["too long"]
    assert (unknown["statusCode"], unknown["data"]["error"]["code"]) == (404, "model_not_found")
    assert (too_long["statusCode"], too_long["data"]["error"]["code"]) == (400, "context_length_exceeded")
    assert all(error["isCallError"] and not error["isRetryable"] for error in errors.values())
