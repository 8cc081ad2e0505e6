"""Anthropic's Messages API, through Anthropic's own client and on the wire."""

import json
import signal

import anthropic
import psutil
import pytest
import requests

from harness.chat_outputs import USAGE, call, calls, end, piece
from harness.sse_client import Decoder, connect, read_all
from harness.stack import MODELS, running_stack, wait_for

QUESTION = "Why is the sky blue and the sea too?"
REQUEST = {"model": "chat", "max_tokens": 100, "messages": [{"role": "user", "content": QUESTION}]}
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
OUTPUTS = [
    piece(reasoning="Which"),
    piece(reasoning=" city?"),
    piece(text="Let me look."),
    piece(logprobs={"content": []}),
    calls(call(0, '{"city": ', name="weather")),
    calls(call(0, '"Paris"}'), call(1, '{"city": "Rome"}', name="weather")),
]
CONTENT = [
    {"type": "thinking", "thinking": "Which city?"},
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Paris"}},
    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs, and echoes the prompt or says what it scripts."""
    settings = {"WEB_CONCURRENCY": "1", "EVERSTREAM_HEARTBEAT_S": "0.5", "EVERSTREAM_POST_ABANDON_AFTER_S": "1"}
    with running_stack(tmp_path_factory.mktemp("chat"), app_dir=MODELS / "chat", MODEL="chat", **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(chat):
    with anthropic.Anthropic(base_url=chat.url, api_key="none", max_retries=0) as client:
        yield client


def script(*outputs, **more):
    """A request for these outputs."""
    said = json.dumps({"outputs": outputs, "end": {"usage": USAGE, **end("stop")}, **more})
    # The text of a script begins with its outputs.
    return {**REQUEST, "tools": [TOOL], "messages": [{"role": "user", "content": said}]}


def post(stack, body, **headers):
    return requests.post(f"{stack.url}/v1/messages", json=body, headers=headers, timeout=60)


def stream(stack, body, **headers):
    """All events of a stream."""
    response = post(stack, {"stream": True, **body}, Accept="text/event-stream", **headers)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return Decoder().feed(response.content)


def without_pings(events):
    return [event for event in events if event.type != "ping"]


def test_message(client):
    message = client.messages.create(**REQUEST)
    assert [block.model_dump(exclude_none=True) for block in message.content] == [{"type": "text", "text": QUESTION}]
    assert (message.stop_reason, message.stop_sequence, message.model) == ("end_turn", None, "chat")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 9)
    assert message.id.startswith("msg_")
    assert message._request_id.startswith("req_")


def test_stream(client):
    with client.messages.stream(**REQUEST) as stream:
        assert "".join(stream.text_stream) == QUESTION
        message = stream.get_final_message()
    whole = client.messages.create(**REQUEST)
    assert message.model_dump(exclude={"id"}) == whole.model_dump(exclude={"id"})


def test_raw_stream(client):
    types = [event.type for event in client.messages.create(**REQUEST, stream=True)]
    text = ["content_block_start", *["content_block_delta"] * 9, "content_block_stop"]
    assert types == ["message_start", *text, "message_delta", "message_stop"]


def test_thinking_and_tools(client):
    whole = client.messages.create(**script(*OUTPUTS))
    with client.messages.stream(**script(*OUTPUTS)) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        content = [block.model_dump(exclude_none=True, exclude={"signature"}) for block in message.content]
        assert content == CONTENT
        assert message.stop_reason == "tool_use"
        assert (message.usage.input_tokens, message.usage.output_tokens) == (12, 5)


def test_second_turn(client):
    """A message goes back as it came, with the results of its calls."""
    first = client.messages.create(**script(*OUTPUTS))
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "18 °C", "is_error": False}
        for block in first.content
        if block.type == "tool_use"
    ]
    turns = [*REQUEST["messages"], first.to_param(), {"role": "user", "content": [*results, QUESTION_BLOCK]}]
    second = client.messages.create(**REQUEST | {"messages": turns, "tools": [TOOL], "system": "Be brief."})
    # The test model calls every tool with what it was told last.
    assert second.content[0].input == {"said": QUESTION}


QUESTION_BLOCK = {"type": "text", "text": QUESTION, "cache_control": {"type": "ephemeral"}}


def test_beta_client(client):
    message = client.beta.messages.create(**REQUEST, betas=["interleaved-thinking-2025-05-14"])
    assert message.content[0].text == QUESTION


def test_stop_reasons(client):
    assert client.messages.create(**REQUEST | {"max_tokens": 3}).stop_reason == "max_tokens"
    body = script(piece(text="a"), end={"usage": USAGE, **end("stop", "\n\n")})
    message = client.messages.create(**body, stop_sequences=["\n\n"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "\n\n")


def test_count_tokens(client):
    prompt = {"model": "chat", "messages": REQUEST["messages"], "system": "Be brief.", "tools": [TOOL]}
    counted = client.messages.count_tokens(**prompt, tool_choice={"type": "any"})
    assert counted.input_tokens == client.messages.create(**REQUEST).usage.input_tokens
    with pytest.raises(anthropic.BadRequestError, match="messages is empty"):
        client.messages.count_tokens(model="chat", messages=[])


def test_headers(client, chat):
    response = client.messages.with_raw_response.create(
        **REQUEST, metadata={"user_id": "u"}, service_tier="auto", extra_headers={"X-Request-Id": "mine-1"}
    )
    assert response.headers["request-id"] == "mine-1"
    assert response.headers["x-everstream-ignored"] == "metadata, service_tier"
    assert "openai-version" not in response.headers
    assert "x-everstream-ignored" not in post(chat, REQUEST).headers


def test_first_event_and_pings_come_before_the_first_token(chat, gate):
    body = script(piece(text="a"), hold_before=1, gate=str(gate.path))
    url = f"{chat.url}/v1/messages"
    with requests.post(url, json={**body, "stream": True}, stream=True, timeout=60) as response:
        decoder, events = Decoder(), []
        for chunk in response.iter_content(None):
            events += decoder.feed(chunk)
            if [event.type for event in events[:3]] == ["message_start", "ping", "ping"]:
                gate.open()
            if events[-1].type == "message_stop":
                break
    assert events[0].json["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert events[-2].json["usage"] == {"input_tokens": 12, "output_tokens": 5}


def test_same_key_same_message(client, chat):
    headers = {"Idempotency-Key": "0123456789abcdef-anthropic"}
    first = client.messages.create(**REQUEST, extra_headers=headers)
    assert client.messages.create(**REQUEST, extra_headers=headers).id == first.id
    with pytest.raises(anthropic.ConflictError) as caught:
        client.messages.create(**REQUEST | {"max_tokens": 99}, extra_headers=headers)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.error_code == "request_id_conflict"
    # Or else the client would send it three times.
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_resume_after_every_event(chat):
    key = {"Idempotency-Key": "0123456789abcdef-resumed"}
    uncut = stream(chat, script(*OUTPUTS), **key)
    generation = uncut[0].id.partition(".")[0]
    url = f"{chat.events_url(generation)}?format=messages"
    assert uncut[0].json["message"]["id"] == f"msg_{generation}"
    assert read_all(url) == uncut
    for cut, last in enumerate(uncut[:-1], 1):
        assert uncut[:cut] + stream(chat, script(*OUTPUTS), **{"Last-Event-ID": last.id}) == uncut
        assert uncut[:cut] + read_all(url, last_id=last.id) == uncut
    over = post(chat, {**script(*OUTPUTS), "stream": True}, **{"Last-Event-ID": uncut[-1].id})
    assert (over.status_code, over.content) == (204, b"")


def test_a_key_finds_the_whole_stream_again(chat):
    key = {"Idempotency-Key": "0123456789abcdef-again"}
    assert stream(chat, script(*OUTPUTS), **key) == stream(chat, script(*OUTPUTS), **key)


def test_resume_of_another_request_is_refused(chat):
    seen = stream(chat, script(*OUTPUTS))[3].id
    response = post(chat, {**REQUEST, "stream": True}, **{"Last-Event-ID": seen})
    assert (response.status_code, response.json()["error"]["type"]) == (409, "invalid_request_error")


def test_killed_worker(chat, gate):
    body = script(*OUTPUTS, hold_before=6, gate=str(gate.path))
    generation = chat.submit(messages=body["messages"])
    url = f"{chat.events_url(generation)}?format=messages"
    with connect(url) as first:
        # In the midst of a tool call.
        first.read(until=lambda seen: seen.events and "city" in seen.events[-1].data)
        psutil.Process(chat.worker_of(first.local_port)).kill()
        events = first.read_until_cut().events
    gate.open()
    wait_for(lambda: len(chat.workers()) == 1, what="a new worker")
    events += read_all(url, last_id=first.decoder.last_id)
    assert without_pings(events) == without_pings(read_all(url))


def test_worker_that_stops_ends_a_message_with_an_error(own_stack, gate):
    """A client that can't resume must not take it for whole."""
    stack = own_stack(app_dir=MODELS / "chat", MODEL="chat", WEB_CONCURRENCY="1", EVERSTREAM_DRAIN_S="0")
    stack.start()
    body = script(piece(text="a"), piece(text="b"), hold_before=2, gate=str(gate.path))
    with (
        anthropic.Anthropic(base_url=stack.url, api_key="none", max_retries=0) as client,
        client.messages.stream(**body) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        for text in stream.text_stream:
            assert text == "a"
            stack.web.popen.send_signal(signal.SIGTERM)
    assert caught.value.type == "overloaded_error"


def test_failure(client):
    with pytest.raises(anthropic.InternalServerError, match="told to fail") as caught:
        client.messages.create(**REQUEST | {"messages": [{"role": "user", "content": "fail"}]})
    assert (caught.value.type, caught.value.error_code) == ("api_error", "model_error")
    with (
        pytest.raises(anthropic.APIStatusError, match="told to fail") as caught,
        client.messages.stream(**REQUEST | {"messages": [{"role": "user", "content": "fail"}]}) as stream,
    ):
        stream.until_done()
    assert (caught.value.type, caught.value.error_code) == ("api_error", "model_error")


def test_prompt_that_is_too_long(client):
    long = [{"role": "user", "content": "word " * 1000}]
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**REQUEST | {"messages": long})
    assert (caught.value.type, caught.value.error_code) == ("invalid_request_error", "context_length_exceeded")


@pytest.mark.parametrize(
    ("change", "status", "kind", "message"),
    [
        ({"model": "claude"}, 404, "not_found_error", "'claude' does not exist"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"messages": []}, 400, "invalid_request_error", "messages is empty"),
        ({"top_p": 3}, 400, "invalid_request_error", "top_p"),
        ({"tools": [{"type": "web_search_20250305"}]}, 400, "invalid_request_error", "web_search"),
        ({"x": "x" * (5 << 20)}, 413, "request_too_large", "body"),
    ],
)
def test_refusals(chat, change, status, kind, message):
    response = post(chat, {**REQUEST, **change})
    body = response.json()
    assert (response.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert message in body["error"]["message"]
    assert body["request_id"] == response.headers["request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "", 405, "invalid_request_error"),
        ("POST", "/batches", 404, "not_found_error"),
        ("GET", "/batches/msgbatch_1", 404, "not_found_error"),
    ],
)
def test_unknown_routes_are_anthropic_errors(chat, method, path, status, kind):
    response = requests.request(method, f"{chat.url}/v1/messages{path}", timeout=60)
    assert (response.status_code, response.json()["error"]["type"]) == (status, kind)


def test_client_that_cannot_come_back_is_not_waited_for(client, chat, gate):
    cancelled = chat.metric("generations_cancelled_total")
    body = script(piece(text="a"), piece(text="b"), hold_before=2, gate=str(gate.path))
    with client.messages.stream(**body) as stream:
        assert next(stream.text_stream) == "a"
        generation = stream.current_message_snapshot.id.removeprefix("msg_")
    # Asking for the generation itself would count as reading.
    wait_for(lambda: chat.metric("generations_cancelled_total") > cancelled, what="the generation's end")
    assert chat.show(generation)["state"] == "cancelled"
