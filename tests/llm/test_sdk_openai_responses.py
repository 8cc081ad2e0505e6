"""OpenAI's Python client and /v1/responses: each test is one call of `openai_responses_calls.py` and its answer."""

import json

import pytest

PARIS = "The capital of France is Paris."
CITIES = ("Paris", "Rome")
DELTA = "response.output_text.delta"


def assert_whole(response, text=PARIS, status="completed"):
    """A response of one message."""
    [message] = response["output"]
    assert (response["object"], response["status"], response["error"]) == ("response", status, None)
    assert response["id"].startswith("resp_") and message["id"].startswith("msg_")
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", status)
    assert [(part["type"], part["text"]) for part in message["content"]] == [("output_text", text)]
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def without_heartbeats(events):
    """A heartbeat repeats the response's state, with the number of the last event. The others have no gaps."""
    kept = []
    for event in events:
        if kept and event["sequence_number"] == kept[-1]["sequence_number"]:
            assert event["type"] in ("response.queued", "response.in_progress")
        else:
            kept.append(event)
    first = kept[0]["sequence_number"]
    assert [event["sequence_number"] for event in kept] == list(range(first, first + len(kept)))
    return kept


def test_response(llm, sdk):
    response = sdk("openai_responses_calls.response", llm)
    assert_whole(response)
    assert response["_request_id"].startswith("req_")


def test_response_that_reaches_the_limit(llm, sdk):
    response = sdk("openai_responses_calls.too_few_tokens", llm)
    assert_whole(response, "The capital of", "incomplete")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


def test_stream(llm, sdk):
    events = without_heartbeats(sdk("openai_responses_calls.stream", llm))
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [event["delta"] for event in events if event["type"] == DELTA]
    assert "".join(deltas) == PARIS and len(deltas) > 1
    assert_whole(events[-1]["response"])
    assert events[0]["response"]["output"] == []


def test_stream_that_the_client_puts_together(llm, sdk):
    made = sdk("openai_responses_calls.stream_helper", llm)
    assert_whole(made["answer"])
    assert made["events"][-1] == "response.completed"


def test_second_turn_takes_the_items_back(llm, sdk):
    assert_whole(sdk("openai_responses_calls.second_turn", llm), "The capital of Italy is Rome.")


def test_tool_round(llm, sdk):
    called = sdk("openai_responses_calls.tools", llm)
    [call] = called["first"]["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "get_weather", "completed")
    assert json.loads(call["arguments"])["city"] in CITIES and call["call_id"]
    assert called["second"]["output"][0]["content"][0]["text"]


def test_tool_stream(llm, sdk):
    events = sdk("openai_responses_calls.tools_stream", llm)
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    [done] = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert "".join(deltas) == done["arguments"] and json.loads(done["arguments"])["city"] in CITIES
    [call] = events[-1]["response"]["output"]
    assert (call["type"], call["arguments"]) == ("function_call", done["arguments"])


def test_pydantic_class(llm, sdk):
    parsed = sdk("openai_responses_calls.parse", llm)["parsed"]
    assert parsed["city"] in CITIES and 0 <= parsed["degrees"] <= 9 and isinstance(parsed["rain"], bool)


def test_previous_response(llm, sdk):
    """It is continued, read again, listed and deleted."""
    called = sdk("openai_responses_calls.previous", llm)
    first, second = called["first"], called["second"]
    assert_whole(second, "The capital of Italy is Rome.")
    assert second["previous_response_id"] == first["id"]
    assert (called["read"]["id"], called["read"]["output"]) == (first["id"], first["output"])
    [item] = called["items"]
    assert item["role"] == "user" and item["content"][0]["text"] == "What is the capital of France?"
    assert (called["gone"]["class"], called["gone"]["status"]) == ("NotFoundError", 404)


def test_background(llm, sdk):
    """Nobody waits; the stream is read later, from the start and from the middle."""
    called = sdk("openai_responses_calls.background", llm)
    assert called["started"]["status"] in ("queued", "in_progress") and called["started"]["background"]
    whole = without_heartbeats(called["whole"])
    rest = without_heartbeats(called["rest"])
    assert "".join(event["delta"] for event in whole if event["type"] == DELTA) == PARIS
    assert rest == whole[3:]
    assert_whole(called["read"])


def test_cancel(llm, sdk):
    called = sdk("openai_responses_calls.cancel", llm)
    assert (called["cancelled"]["status"], called["read"]["status"]) == ("cancelled", "cancelled")


def test_idempotency_key(llm, sdk):
    answers = sdk("openai_responses_calls.idempotent", llm)
    assert answers[0]["id"] == answers[1]["id"] and answers[0]["output"] == answers[1]["output"]


@pytest.fixture(scope="module")
def errors(llm, sdk):
    return sdk("openai_responses_calls.errors", llm)


@pytest.mark.parametrize(
    ("request_name", "status", "code"),
    [
        ("unknown model", 404, "model_not_found"),
        ("too long", 400, "context_length_exceeded"),
        ("unknown", 404, None),
        ("unknown previous", 400, "previous_response_not_found"),
    ],
)
def test_errors(errors, request_name, status, code):
    error = errors[request_name]
    assert (error["status"], bool(error["request_id"])) == (status, True)
    assert code in (None, error["code"])
