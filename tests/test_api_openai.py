"""OpenAI's API with the real demo model: through OpenAI's own client, and on the wire."""

import json

import openai
import pytest
import requests

from tests.sse_client import Decoder, read_all, text_of

ASK = {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "temperature": 0, "max_tokens": 20}


@pytest.fixture(scope="module")
def client(llm):
    with openai.OpenAI(base_url=f"{llm.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def natively(llm):
    """The same answer in Everstream's own format."""
    return read_all(llm.events_url(llm.submit(prompt="Why is the sky blue?", temperature=0, max_tokens=20)))


def post(stack, path, body, **headers):
    """All events of a stream, and the response."""
    response = requests.post(f"{stack.url}/v1/{path}", json={"stream": True, **body}, headers=headers, timeout=60)
    return Decoder().feed(response.content), response


def chunks_of(events):
    return [json.loads(event.data) for event in events if event.data != "[DONE]"]


def said(events):
    choices = [choice for chunk in chunks_of(events) for choice in chunk.get("choices", ())]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def test_a_chat_through_openais_client(client, model, natively):
    chunks = list(
        client.chat.completions.create(model=model, stream=True, stream_options={"include_usage": True}, **ASK)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text_of(natively)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage.model_dump(exclude_none=True) == natively[-1].json["usage"]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, model),
    }


def test_a_plain_completion_has_no_chat_template(client, model):
    chunks = list(
        client.completions.create(model=model, prompt="One, two, three,", stream=True, temperature=0, max_tokens=5)
    )
    assert "four" in "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].usage is None


def test_the_chunks_end_with_done_and_have_ids_without_a_gap(llm, natively):
    events, response = post(llm, "chat/completions", ASK)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert events[-1].data == "[DONE]"
    numbers = [int(event.id.rpartition(".")[2]) for event in events if event.id]
    assert sorted(set(numbers)) == list(range(len(natively)))
    assert said(events) == text_of(natively)


def test_a_client_that_comes_back_goes_on_where_it_was(llm):
    events, _ = post(llm, "chat/completions", ASK)
    seen = events[:7]
    rest, _ = post(llm, "chat/completions", ASK, **{"Last-Event-ID": seen[-1].id})
    assert [(event.id, event.data) for event in seen + rest] == [(event.id, event.data) for event in events]
    _, again = post(llm, "chat/completions", ASK, **{"Last-Event-ID": rest[-1].id})
    assert (again.status_code, again.content) == (204, b"")


def test_a_request_id_attaches_to_the_same_answer(llm):
    body = {**ASK, "temperature": 1, "request_id": "0123456789abcdef-openai"}
    first, _ = post(llm, "chat/completions", body)
    second, _ = post(llm, "chat/completions", body)
    assert [event.data for event in first] == [event.data for event in second]


def test_a_generation_that_fails_says_so_and_ends(llm):
    events, _ = post(llm, "chat/completions", ASK, **{"Last-Event-ID": f"{'0' * 32}.3"})
    assert chunks_of(events)[-1]["error"]["code"] == "generation_expired"
    assert events[-1].data == "[DONE]"


def test_the_client_hears_of_a_prompt_that_is_too_long(client, model):
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=model, messages=long, stream=True)
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.body["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "change", "param", "said"),
    [
        ("chat/completions", {"stream": False}, "stream", "stream can only be true"),
        ("chat/completions", {"messages": None}, "messages", "messages is missing"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0]", "role and content"),
        ("chat/completions", {"n": 2}, "n", "n can only be 1"),
        ("chat/completions", {"tools": []}, "tools", "tools is not supported; allowed are model"),
        ("chat/completions", {"model": "gpt"}, "model", "'gpt' is not served here"),
        ("chat/completions", {"max_completion_tokens": 0}, "max_tokens", "from 1 to"),
        ("chat/completions", {"temperature": "warm"}, "temperature", "must be a number"),
        ("chat/completions", {"stream_options": 7}, "stream_options", "must be an object"),
        ("chat/completions", {"request_id": "short"}, "request_id", "16 to 64"),
        ("chat/completions", {"flush_ms": -1}, "flush_ms", "from 0 to 1000"),
        ("chat/completions", {"flush_ms": True}, "flush_ms", "from 0 to 1000"),
        ("completions", {"prompt": ["a", "b"]}, "prompt", "prompt must be a string"),
        ("completions", {"prompt": ""}, "prompt", "prompt is empty"),
    ],
)
def test_what_can_not_be_served_is_said(llm, path, change, param, said):
    body = {"prompt": "a"} if path == "completions" else ASK
    _, response = post(llm, path, body | change)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert said in error["message"]


def test_a_model_without_messages_has_no_chat(fast):
    _, response = post(fast, "chat/completions", ASK)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


def test_ignore_eos_goes_on_to_max_tokens(llm):
    body = {"messages": [{"role": "user", "content": "Say only: yes"}], "temperature": 0, "max_tokens": 200}
    short, _ = post(llm, "chat/completions", body)
    long, _ = post(llm, "chat/completions", body | {"ignore_eos": True, "stream_options": {"include_usage": True}})
    assert chunks_of(short)[-1]["choices"][0]["finish_reason"] == "stop"
    assert chunks_of(long)[-1]["usage"]["completion_tokens"] == 200
    assert said(long).startswith(said(short))
