"""Anthropic's Python client and /v1/messages: each test is one call of `anthropic_calls.py` and its answer."""

PARIS = "The capital of France is Paris."
ROME = "The capital of Italy is Rome."
CITIES = ("Paris", "Rome")


def assert_whole(answer, content=PARIS):
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")
    assert [block["text"] for block in answer["content"]] == [content]
    assert answer["usage"]["output_tokens"] == 8


def assert_tool_use(answer):
    assert answer["stop_reason"] == "tool_use"
    [block] = [block for block in answer["content"] if block["type"] == "tool_use"]
    assert block["name"] == "get_weather" and block["input"]["city"] in CITIES


def test_message(llm, sdk):
    answer = sdk("anthropic_calls.message", llm)
    assert_whole(answer)
    assert answer["_request_id"]


def test_stream(llm, sdk):
    events = sdk("anthropic_calls.message_stream", llm)
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == PARIS and len(deltas) > 1
    assert (events[-2]["delta"]["stop_reason"], events[-2]["usage"]["output_tokens"]) == ("end_turn", 8)


def test_stream_that_the_client_puts_together(llm, sdk):
    made = sdk("anthropic_calls.message_stream_helper", llm)
    assert made["text"] == PARIS
    assert_whole(made["answer"])


def test_second_turn(llm, sdk):
    assert_whole(sdk("anthropic_calls.second_turn", llm), ROME)


def test_tool_round(llm, sdk):
    called = sdk("anthropic_calls.tools", llm)
    assert_tool_use(called["first"])
    assert called["second"]["content"][0]["text"]


def test_tool_runner(llm, sdk):
    assert_whole(sdk("anthropic_calls.tool_runner", llm))


def test_tool_stream(llm, sdk):
    assert_tool_use(sdk("anthropic_calls.tools_stream", llm)["answer"])


def test_count_tokens(llm, sdk):
    assert sdk("anthropic_calls.count_tokens", llm)["input_tokens"] == 27


def test_errors(llm, sdk):
    errors = sdk("anthropic_calls.errors", llm)
    for name in ("unknown model", "unknown model's tokens"):
        error = errors[name]
        assert (error["class"], error["body"]["error"]["type"]) == ("NotFoundError", "not_found_error")
    for name in ("too long", "no messages"):
        error = errors[name]
        assert (error["class"], error["body"]["error"]["type"]) == ("BadRequestError", "invalid_request_error")
        assert error["body"]["type"] == "error" and error["request_id"]


def test_stream_that_fails(llm, sdk):
    failure = sdk("anthropic_calls.stopped_stream", llm)
    assert failure["body"]["type"] == "error" and len(failure["texts"]) >= 3
