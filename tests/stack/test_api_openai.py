"""OpenAI's API, through OpenAI's own client and on the wire. `test_llm` covers what needs a real model."""

import json

import openai
import pytest
import requests

from harness.sse_client import Decoder, read_all, text_of
from harness.stack import MODELS, running_stack

QUESTION = "Why is the sky blue and the sea too?"
REQUEST = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs and echoes the prompt."""
    with running_stack(tmp_path_factory.mktemp("chat"), app_dir=MODELS / "chat", WEB_CONCURRENCY="1") as stack:
        yield stack


@pytest.fixture(scope="module")
def client(chat):
    with openai.OpenAI(base_url=f"{chat.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def native_events(chat):
    """The same answer in Everstream's own format."""
    return read_all(chat.events_url(chat.submit(prompt=QUESTION)))


def post(stack, path, body, **headers):
    """All events of a stream, and the response."""
    response = requests.post(f"{stack.url}/v1/{path}", json={"stream": True, **body}, headers=headers, timeout=60)
    return Decoder().feed(response.content), response


def chunks_of(events):
    return [json.loads(event.data) for event in events if event.data != "[DONE]"]


def text_of_chunks(events):
    choices = [choice for chunk in chunks_of(events) for choice in chunk.get("choices", ())]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def test_chat_through_openai_client(client, model, native_events):
    chunks = list(
        client.chat.completions.create(model=model, stream=True, stream_options={"include_usage": True}, **REQUEST)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == QUESTION
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.model_dump(exclude_none=True) == native_events[-1].json["usage"]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, model),
    }


def test_completion_through_openai_client(client, model):
    """The prompt is raw, and `max_tokens` defaults to 16, as in OpenAI's API."""
    prompt = " ".join(str(n) for n in range(20))
    chunks = list(client.completions.create(model=model, prompt=prompt, stream=True))
    # One chunk per token and one for the end. Only a chat begins with a role.
    assert [chunk.choices[0].text for chunk in chunks] == ["0", *(f" {n}" for n in range(1, 16)), ""]
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].usage is None
    chunks = list(
        client.completions.create(
            model=model, prompt=prompt, stream=True, max_tokens=20, stream_options={"include_usage": True}
        )
    )
    assert chunks[-1].usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 20,
        "completion_tokens": 20,
        "total_tokens": 40,
    }


def test_max_tokens_has_two_names(chat):
    for name in ("max_tokens", "max_completion_tokens"):
        events, _ = post(chat, "chat/completions", REQUEST | {name: 3})
        assert text_of_chunks(events) == "Why is the"
        assert chunks_of(events)[-1]["choices"][0]["finish_reason"] == "length"
    # As in OpenAI's API, where `max_tokens` is the old name.
    events, _ = post(chat, "chat/completions", REQUEST | {"max_tokens": 3, "max_completion_tokens": 4})
    assert text_of_chunks(events) == "Why is the sky"


def test_chunks_end_with_done_and_have_contiguous_ids(chat, native_events):
    events, response = post(chat, "chat/completions", REQUEST)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert events[-1].data == "[DONE]"
    numbers = [int(event.id.rpartition(".")[2]) for event in events if event.id]
    assert sorted(set(numbers)) == list(range(len(native_events)))
    assert text_of_chunks(events) == text_of(native_events)


def test_reconnecting_client_resumes(chat):
    events, _ = post(chat, "chat/completions", REQUEST)
    seen = events[:7]
    rest, _ = post(chat, "chat/completions", REQUEST, **{"Last-Event-ID": seen[-1].id})
    assert [(event.id, event.data) for event in seen + rest] == [(event.id, event.data) for event in events]
    _, again = post(chat, "chat/completions", REQUEST, **{"Last-Event-ID": rest[-1].id})
    assert (again.status_code, again.content) == (204, b"")


def test_request_id_attaches_to_the_same_answer(chat):
    body = {**REQUEST, "request_id": "0123456789abcdef-openai"}
    first, _ = post(chat, "chat/completions", body)
    second, _ = post(chat, "chat/completions", body)
    # The generation's id is in each chunk.
    assert [event.data for event in first] == [event.data for event in second]


def test_resume_of_another_request_is_refused(chat):
    body = {**REQUEST, "request_id": "0123456789abcdef-another"}
    events, _ = post(chat, "chat/completions", body)
    other = body | {"messages": [{"role": "user", "content": "Something else"}]}
    _, answer = post(chat, "chat/completions", other)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (409, "request_id_conflict", "invalid_request_error")
    _, answer = post(chat, "chat/completions", other, **{"Last-Event-ID": events[1].id})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "last_event_id_conflict", "Last-Event-ID")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "chat/completions", 405),
        ("DELETE", "models", 405),
        ("POST", "responses", 404),
        ("GET", "models/x/y", 404),
    ],
)
def test_unknown_routes_are_openai_errors(chat, method, path, status):
    answer = requests.request(method, f"{chat.url}/v1/{path}", timeout=60)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (status, "invalid_request_error", None)
    assert error["message"] and error["code"] in ("not_found", "method_not_allowed")


def test_expired_generation_ends_with_an_error(chat):
    events, _ = post(chat, "chat/completions", REQUEST, **{"Last-Event-ID": f"{'0' * 32}.3"})
    assert chunks_of(events)[-1]["error"]["code"] == "generation_expired"
    assert events[-1].data == "[DONE]"


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_failed_generation_ends_with_an_error(chat, path):
    body = {"prompt": "fail"} if path == "completions" else {"messages": [{"role": "user", "content": "fail"}]}
    events, _ = post(chat, path, body)
    error = chunks_of(events)[-1]["error"]
    assert (error["code"], error["type"]) == ("model_error", "server_error")
    assert "told to fail" in error["message"]
    assert events[-1].data == "[DONE]"
    assert not [chunk for chunk in chunks_of(events) if (chunk.get("choices") or [{}])[0].get("finish_reason")]


def test_late_refusal_by_the_model_keeps_its_code(chat):
    events, _ = post(chat, "completions", {"prompt": "refuse"})
    error = chunks_of(events)[-1]["error"]
    assert (error["code"], error["param"], error["message"]) == ("context_length_exceeded", "prompt", "told to refuse")


def test_client_raises_for_a_prompt_that_is_too_long(client, model):
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=model, messages=long, stream=True)
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.param == "messages"
    assert raised.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "change", "param", "message"),
    [
        ("chat/completions", {"stream": False}, "stream", "stream can only be true"),
        ("chat/completions", {"stream": None}, "stream", "stream must be true"),
        ("chat/completions", {"messages": None}, "messages", "messages is missing"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0]", "role and content"),
        ("chat/completions", {"n": 2}, "n", "n can only be 1"),
        ("chat/completions", {"tools": []}, "tools", "tools is not supported; allowed are model"),
        ("chat/completions", {"model": "gpt"}, "model", "'gpt' is not served here"),
        ("chat/completions", {"max_completion_tokens": 0}, "max_tokens", "from 1 to"),
        ("chat/completions", {"temperature": "warm"}, "temperature", "must be a number"),
        ("chat/completions", {"stream_options": 7}, "stream_options", "must be an object"),
        ("chat/completions", {"stream_options": {"include_usage": 1}}, "stream_options", "true or false"),
        ("chat/completions", {"request_id": "short"}, "request_id", "16 to 64"),
        ("chat/completions", {"flush_ms": -1}, "flush_ms", "from 0 to 1000"),
        ("chat/completions", {"flush_ms": True}, "flush_ms", "from 0 to 1000"),
        ("completions", {"prompt": ["a", "b"]}, "prompt", "prompt must be a string"),
        ("completions", {"prompt": ""}, "prompt", "prompt is empty"),
    ],
)
def test_unsupported_parameters_are_refused(chat, path, change, param, message):
    body = {"prompt": "a"} if path == "completions" else REQUEST
    _, response = post(chat, path, body | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert message in error["message"]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("body", ["[]", "7", '"messages"', "{", ""])
def test_body_that_is_not_an_object_is_refused(chat, path, body):
    response = requests.post(f"{chat.url}/v1/{path}", data=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, "body", "invalid_request_error")


def test_default_parameters_of_clients_are_accepted(chat):
    defaults = {"n": 1, "logprobs": False, "user": "me", "store": False, "tools": None, "seed": None, "stop": None}
    events, _ = post(chat, "chat/completions", REQUEST | defaults | {"stream_options": None})
    assert text_of_chunks(events) == QUESTION


def test_chat_needs_a_model_that_takes_messages(fast):
    _, response = post(fast, "chat/completions", REQUEST)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "messages")
    assert error["message"] == "the served model does not accept messages"


def test_ignore_eos_continues_to_max_tokens(chat):
    events, _ = post(chat, "chat/completions", REQUEST | {"ignore_eos": True, "max_tokens": 12})
    assert text_of_chunks(events) == f"{QUESTION} Why is the"
