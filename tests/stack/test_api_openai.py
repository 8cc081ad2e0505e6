"""OpenAI's API, through OpenAI's own client and on the wire. `test_llm` covers what needs a real model."""

import http.client
import json
import shutil
from typing import Literal

import openai
import psutil
import pytest
import requests
from openai.types import Completion, CompletionChoice, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.shared import ErrorObject

from everstream import __version__
from harness.chat_outputs import end, piece
from harness.openai_types import validated
from harness.sse_client import Decoder, connect, read_all, text_of
from harness.stack import MODELS, wait_for

QUESTION = "Why is the sky blue and the sea too?"
REQUEST = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0}


@pytest.fixture(scope="module")
def native_events(chat):
    """The same answer in Everstream's own format."""
    return read_all(chat.events_url(chat.submit(prompt=QUESTION)))


def post(stack, path, body, **headers):
    """All events of a stream, and the response."""
    headers = {"Accept": "text/event-stream", **headers}
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
    ids = [event.id.rpartition(".")[2] for event in events]
    last = len(native_events) - 1
    assert ids == ["1-0", *map(str, range(1, last)), f"{last}-0", str(last)]
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
        ("POST", "images", 404),
    ],
)
def test_unknown_routes_are_openai_errors(chat, method, path, status):
    answer = requests.request(method, f"{chat.url}/v1/{path}", timeout=60)
    error = answer.json()["error"]
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert (answer.status_code, error["type"], error["param"]) == (status, kind, None)
    assert error["message"] and error["code"] in ("not_found", "method_not_allowed")


def test_expired_generation_ends_with_an_error(chat):
    events, _ = post(chat, "chat/completions", REQUEST, **{"Last-Event-ID": f"{'0' * 32}.3"})
    assert chunks_of(events)[-1]["error"]["code"] == "generation_expired"
    assert "[DONE]" not in [event.data for event in events]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_failed_generation_ends_with_an_error(chat, path):
    body = {"prompt": "fail"} if path == "completions" else {"messages": [{"role": "user", "content": "fail"}]}
    events, _ = post(chat, path, body)
    error = chunks_of(events)[-1]["error"]
    assert (error["code"], error["type"]) == ("model_error", "server_error")
    assert "told to fail" in error["message"]
    assert "[DONE]" not in [event.data for event in events]
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
        ("chat/completions", {"stream": "yes"}, "stream", "stream must be true or false"),
        ("chat/completions", {"messages": None}, "messages", "messages is missing"),
        ("chat/completions", {"messages": [{"content": "a"}]}, "messages[0]", "role and content"),
        ("chat/completions", {"n": 0}, "n", "from 1 to 128"),
        ("chat/completions", {"functions": [{"name": "a"}]}, "functions", "does not accept functions"),
        ("chat/completions", {"modalities": ["audio"]}, "modalities", "does not accept modalities"),
        ("chat/completions", {"max_completion_tokens": 0}, "max_tokens", "from 1 to"),
        ("chat/completions", {"temperature": "warm"}, "temperature", "must be a number"),
        ("chat/completions", {"stream_options": 7}, "stream_options", "must be an object"),
        ("chat/completions", {"stream_options": {"include_usage": 1}}, "stream_options", "true or false"),
        ("chat/completions", {"request_id": "short"}, "request_id", "16 to 64"),
        ("chat/completions", {"flush_ms": -1}, "flush_ms", "from 0 to 1000"),
        ("chat/completions", {"flush_ms": True}, "flush_ms", "from 0 to 1000"),
        ("completions", {"prompt": ""}, "prompt", "prompt is empty"),
        ("completions", {"prompt": []}, "prompt", "prompt must be a string, or an array of strings"),
        ("completions", {"prompt": [{}]}, "prompt", "prompt must be a string, or an array of strings"),
        ("completions", {"prompt": [[7], 7]}, "prompt", "must be an array of strings"),
        ("completions", {"prompt": [[7], 7], "stream": False}, "prompt", "must be an array of strings"),
        ("completions", {"prompt": [[1.5] * 5000]}, "prompt", "prompt must be a string, or an array of strings"),
        ("completions?compact=yes", {"prompt": "a"}, "compact", "compact must be true or false"),
        ("completions", {"prompt": "a", "best_of": 2}, "best_of", "does not accept best_of"),
    ],
)
def test_unsupported_parameters_are_refused(chat, path, change, param, message):
    body = {"prompt": "a"} if path.startswith("completions") else REQUEST
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


TOOLS = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("look", "say")]
RICH = {
    "plain": {},
    "choices": {"n": 2, "temperature": 1},
    "logprobs": {"logprobs": True},
    "reasoning": {"reasoning_effort": "low"},
    "tools": {"tools": TOOLS, "reasoning_effort": "low"},
}


def whole(stack, path, body, **headers):
    return requests.post(f"{stack.url}/v1/{path}", json=body, headers=headers, timeout=60)


def joined(events):
    """The choices of a stream, joined from their deltas: text, reasoning, calls, log probabilities, and the end."""
    choices = {}
    for choice in (choice for chunk in chunks_of(events) for choice in chunk["choices"]):
        empty = {"content": "", "reasoning": "", "calls": {}, "logprobs": [], "finish_reason": None}
        known, delta = choices.setdefault(choice["index"], empty), choice["delta"]
        known["content"] += delta.get("content") or ""
        known["reasoning"] += delta.get("reasoning") or ""
        for call in delta.get("tool_calls", ()):
            name = call["function"].get("name", "")
            earlier = known["calls"].get(call["index"], ["", "", ""])
            pieces = [call.get("id", ""), name, call["function"]["arguments"]]
            known["calls"][call["index"]] = [a + b for a, b in zip(earlier, pieces, strict=True)]
        known["logprobs"] += (choice["logprobs"] or {}).get("content", [])
        known["finish_reason"] = choice["finish_reason"] or known["finish_reason"]
    return choices


@pytest.mark.parametrize("given", RICH.values(), ids=RICH)
def test_whole_chat_equals_the_streamed_one(chat, client, model, given):
    events, _ = post(chat, "chat/completions", REQUEST | given | {"stream_options": {"include_usage": True}})
    streamed = joined(events)
    completion = client.chat.completions.create(model=model, **(REQUEST | given))
    assert completion.object == "chat.completion" and completion.id.startswith("chatcmpl-")
    assert completion.usage.model_dump(exclude_none=True) == chunks_of(events)[-1]["usage"]
    assert len(completion.choices) == len(streamed) == given.get("n", 1)
    for choice in completion.choices:
        message, expected = choice.message, streamed[choice.index]
        assert (message.role, message.refusal) == ("assistant", None)
        assert (message.content or "") == expected["content"]
        assert getattr(message, "reasoning", "") == expected["reasoning"]
        calls = [[call.id, call.function.name, call.function.arguments] for call in message.tool_calls or ()]
        assert calls == list(expected["calls"].values())
        assert (
            [each.model_dump() for each in choice.logprobs.content or ()] == expected["logprobs"]
            if (choice.logprobs)
            else expected["logprobs"] == []
        )
        assert choice.finish_reason == expected["finish_reason"]


@pytest.mark.parametrize("given", RICH.values(), ids=RICH)
def test_chat_cut_after_any_event_resumes_with_the_rest(chat, given):
    assert_resumes_after_any_event(chat, "chat/completions", REQUEST | given)


@pytest.mark.parametrize("given", [{}, {"n": 2}, {"logprobs": 1}], ids=str)
def test_completion_cut_after_any_event_resumes_with_the_rest(chat, given):
    assert_resumes_after_any_event(chat, "completions", {"prompt": QUESTION, **given})


def assert_resumes_after_any_event(stack, path, body):
    events, _ = post(stack, path, body)
    seen = [(event.id, event.data) for event in events]
    assert len({event_id for event_id, _ in seen}) == len(seen)
    for number in range(1, len(seen)):
        rest, _ = post(stack, path, body, **{"Last-Event-ID": seen[number - 1][0]})
        assert [(event.id, event.data) for event in rest] == seen[number:]


@pytest.mark.parametrize(("path", "form"), [("chat/completions", "openai-chat"), ("completions", "completions")])
def test_worker_killed_in_mid_stream(chat, gate, path, form):
    outputs = [piece(text=text) for text in ("one", "two", "three", "four")]
    said = json.dumps({"outputs": outputs, "end": end("stop"), "hold_before": 3, "gate": gate.path})
    prompt = {"prompt": said} if path == "completions" else {"messages": [{"role": "user", "content": said}]}
    url, body = f"{chat.url}/v1/{path}", {"stream": True, **prompt}
    with connect(url, body=body) as viewer:
        viewer.read(until=lambda seen: any("two" in event.data for event in seen.events))
        psutil.Process(chat.worker_of(viewer.local_port)).kill()
        events = viewer.read_until_cut().events
    gate.open()
    wait_for(lambda: len(chat.workers()) == 2, what="a new worker")
    rest = read_all(url, viewer.decoder.last_id, body=body)
    assert [text_of_chunks(part) for part in (events, rest)] == ["onetwo", "threefour"]
    generation, _, _ = viewer.decoder.last_id.partition(".")
    assert events + rest == read_all(f"{chat.events_url(generation)}?format={form}")


OF_CHOICE = ("stop_reason", "token_ids", "prompt_token_ids", "prompt_logprobs")
OF_CHAT = {f"ChatCompletion.{name}" for name in ("prompt_token_ids", "prompt_logprobs", "prompt_text")} | {
    f"ChatCompletion.choices[{index}].{name}"
    for index in (0, 1)
    for name in ("stop_reason", "token_ids", "message.reasoning")
}
OF_CHUNK = {f"ChatCompletionChunk.choices[0].{name}" for name in ("stop_reason", "delta.reasoning")}
OF_COMPLETION = {f"Completion.choices[{index}].{name}" for index in (0, 1) for name in OF_CHOICE} | {
    "Completion.service_tier"
}
OF_PIECE = {"Piece.choices[0].stop_reason"}
OF_MODEL = {f"Model.{name}" for name in ("root", "parent", "max_model_len")}
"""Fields that OpenAI's types lack, and vLLM's server has too."""


class PieceChoice(CompletionChoice):
    """OpenAI's own server sends null until the end, too."""

    finish_reason: Literal["stop", "length", "content_filter"] | None


class Piece(Completion):
    choices: list[PieceChoice]


def assert_all_are(kind, events, others):
    assert events[-1].data == "[DONE]"
    for event in events[:-1]:
        validated(kind, event.data.encode(), others)


@pytest.mark.parametrize("given", RICH.values(), ids=RICH)
def test_chats_are_of_openais_types(chat, given):
    events, _ = post(chat, "chat/completions", REQUEST | given | {"stream_options": {"include_usage": True}})
    assert_all_are(ChatCompletionChunk, events, OF_CHUNK)
    validated(ChatCompletion, whole(chat, "chat/completions", REQUEST | given).content, OF_CHAT)


@pytest.mark.parametrize("given", [{}, {"n": 2}, {"logprobs": 1}, {"max_tokens": 1}])
def test_completions_are_of_openais_types(chat, given):
    body = {"prompt": QUESTION, **given}
    events, _ = post(chat, "completions", body | {"stream_options": {"include_usage": True}})
    assert_all_are(Piece, events, OF_PIECE)
    validated(Completion, whole(chat, "completions", body).content, OF_COMPLETION)


def test_models_are_of_openais_type(chat):
    models = requests.get(f"{chat.url}/v1/models", timeout=60).json()
    (model,) = (json.dumps(each) for each in models["data"])
    validated(Model, model, OF_MODEL)


def test_errors_are_of_openais_type(chat):
    events, _ = post(chat, "completions", {"prompt": "fail"})
    for body in (events[-1].json, whole(chat, "completions", {"prompt": "fail"}).json(), whole(chat, "no", {}).json()):
        validated(ErrorObject, json.dumps(body["error"]))


def test_id_in_the_query_is_as_good_as_the_header(chat):
    """Also for a client that says nothing of event streams: it gets nothing twice, and ids."""
    body = REQUEST | RICH["tools"]
    events, _ = post(chat, "chat/completions", body)
    for number, seen in enumerate(events[:4], 1):
        rest, _ = post(chat, f"chat/completions?last_event_id={seen.id}", body, Accept="*/*")
        assert [(event.id, event.data) for event in rest] == [(event.id, event.data) for event in events[number:]]


def test_second_turn_as_the_client_got_the_first(client, model):
    first = client.chat.completions.create(model=model, tools=TOOLS, **REQUEST).choices[0].message
    answered = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "It scatters blue light."}
    messages = [*REQUEST["messages"], first.model_dump(), answered]
    second = client.chat.completions.create(model=model, messages=messages)
    assert second.choices[0].message.content == "It scatters blue light."
    third = client.chat.completions.create(
        model=model, messages=[*messages, second.choices[0].message.model_dump(), {"role": "user", "content": "Thanks"}]
    )
    assert third.choices[0].message.content == "Thanks"


NO_OPS = {
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "n": 1,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "none",
    "response_format": {"type": "text"},
    "top_logprobs": 0,
    "repetition_penalty": 1.0,
    "logprobs": None,
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "functions": None,
    "metadata": None,
    "audio": None,
}


@pytest.mark.parametrize("stack", ["chat", "fast"])
def test_values_that_change_nothing_are_dropped(request, stack):
    """Also for a model that has none of these inputs."""
    stack = request.getfixturevalue(stack)
    response = whole(
        stack, "completions", {"prompt": '{"texts":["a"]}', **NO_OPS, "best_of": 1, "suffix": None, "echo": False}
    )
    assert response.ok, response.text
    assert "x-everstream-ignored" not in response.headers


def test_unknown_fields_are_ignored_and_named(chat):
    unknown = {
        "prompt_cache_key": "a",
        "safety_identifier": "b",
        "service_tier": "auto",
        "verbosity": "low",
        "a\r\nb": 1,
    }
    response = whole(chat, "chat/completions", REQUEST | unknown)
    assert response.json()["choices"][0]["message"]["content"] == QUESTION
    ignored = response.headers["x-everstream-ignored"].split(", ")
    assert ignored == ["prompt_cache_key", "safety_identifier", "service_tier", "verbosity", "?"]


def test_headers_are_openais(chat):
    response = whole(chat, "chat/completions", REQUEST, **{"X-Request-Id": "my-request"})
    assert response.headers["x-request-id"] == "my-request"
    assert response.headers["openai-version"] == "2020-10-01"
    assert int(response.headers["openai-processing-ms"]) >= 0
    response = whole(chat, "nothing", {}, **{"X-Request-Id": "not harmless;"})
    assert response.status_code == 404
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("is_stream", [False, True])
def test_idempotency_key_attaches_to_the_same_answer(chat, is_stream):
    key = {"Idempotency-Key": f"a key with spaces, as some send it: {is_stream}"}
    body = REQUEST | {"stream": is_stream}
    first, second = (whole(chat, "chat/completions", body, **key) for _ in range(2))
    assert first.content == second.content
    other = whole(chat, "chat/completions", body | {"max_tokens": 3}, **key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "request_id_conflict")
    short = whole(chat, "chat/completions", body, **{"Idempotency-Key": "short"})
    assert (short.status_code, short.json()["error"]["param"]) == (400, "Idempotency-Key")


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt", **REQUEST)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_tokens_of_a_prompt(chat):
    """As vLLM's server counts them; an ignored field is named here too."""
    for prompt in ({"prompt": QUESTION, "messages": None}, {"messages": REQUEST["messages"]}):
        response = requests.post(f"{chat.url}/tokenize", json={**prompt, "unheard_of": 1}, timeout=60)
        found = response.json()
        assert (found["count"], found["max_model_len"], found["tokens"]) == (12, 1000, list(range(12)))
        assert response.headers["x-everstream-ignored"] == "unheard_of"
    for given, param in (({}, "prompt"), ({"prompt": "a", "messages": []}, "prompt"), ({"messages": []}, "messages")):
        response = requests.post(f"{chat.url}/tokenize", json=given, timeout=60)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("path", "body"), [("detokenize", {"tokens": [1]}), ("tokenize", {"prompt": "a"})])
def test_tokens_need_a_model_that_has_them(fast, path, body):
    response = requests.post(f"{fast.url}/{path}", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (404, "not_supported", "not_found_error")
    assert error["message"] == f"the served model can't {path}"
    assert response.headers["x-request-id"]


def test_detokenize_gives_text(chat):
    response = requests.post(f"{chat.url}/detokenize", json={"tokens": [1, 2]}, timeout=60)
    assert response.json() == {"prompt": "1 2"}
    response = requests.post(f"{chat.url}/detokenize", json={"tokens": [-1]}, timeout=60)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tokens")


def test_vllms_routes_for_probes(chat):
    for path in ("health", "ping"):
        response = requests.get(f"{chat.url}/{path}", timeout=60)
        assert (response.status_code, response.content) == (200, b"")
    assert requests.get(f"{chat.url}/version", timeout=60).json() == {"version": __version__}


def test_embeddings_are_refused_clearly(client, model):
    with pytest.raises(openai.NotFoundError, match="it has no embeddings") as raised:
        client.embeddings.create(model=model, input="a")
    assert raised.value.code == "embeddings_not_supported"


def test_conflict_is_not_worth_a_retry(chat):
    key = {"Idempotency-Key": "0123456789abcdef-conflict"}
    whole(chat, "chat/completions", REQUEST, **key)
    response = whole(chat, "chat/completions", REQUEST | {"max_tokens": 1}, **key)
    assert (response.status_code, response.headers["x-should-retry"]) == (409, "false")


def test_models_show_their_context(client, model):
    assert client.models.retrieve(model).max_model_len == client.models.list().data[0].max_model_len == 1000


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_failed_whole_answer_is_an_error(chat, path):
    for word, status, code in (("fail", 500, "model_error"), ("refuse", 400, "context_length_exceeded")):
        body = {"prompt": word} if path == "completions" else {"messages": [{"role": "user", "content": word}]}
        response = whole(chat, path, body)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_model_checks_what_only_it_knows(chat):
    response = whole(chat, "chat/completions", REQUEST | {"logprobs": "bad"})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["message"]) == (400, "logprobs", "told that logprobs is bad")


def test_clients_that_read_lines_get_nothing_but_data(chat):
    """Benchmarks read each piece that arrives as one `data: ` line."""
    body = REQUEST | {"stream": True}
    lines = requests.post(f"{chat.url}/v1/chat/completions", json=body, timeout=60).text.split("\n")
    assert {line[:6] for line in lines} == {"data: ", ""}


@pytest.mark.parametrize("wanted", ["openai-chat", "completions"])
def test_any_generation_can_be_read_as_chunks(chat, native_events, wanted):
    generation = native_events[0].json["generation"]
    events = read_all(f"{chat.events_url(generation)}?format={wanted}")
    assert text_of_chunks(events) == QUESTION
    assert events[-1].data == "[DONE]"
    response = requests.get(f"{chat.events_url(generation)}?format=nope", timeout=60)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "format")


def test_late_joiner_may_ask_for_one_compact_event(chat, native_events):
    generation = native_events[0].json["generation"]
    events = read_all(f"{chat.events_url(generation)}?compact=true")
    assert text_of(events) == QUESTION
    assert [event.id.rpartition(".")[2] for event in events] == [
        "0",
        "1",
        *[event.id.rpartition(".")[2] for event in native_events[-2:]],
    ]
    events = read_all(f"{chat.events_url(generation)}?compact=true&format=openai-chat")
    assert text_of_chunks(events) == QUESTION
    assert len(events) == 5


def test_input_called_compact_is_the_models_own(own_stack, tmp_path):
    """/stream has no option of that name, also when an EventSource repeats the request to resume."""
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "echo", folder)
    (folder / "input_schema.py").write_text("INPUT_SCHEMA = {'compact': {'datatype': 'STRING', 'required': True}}")
    stack = own_stack(app_dir=folder).start()
    url = f"{stack.url}/stream?compact=very"
    events = read_all(url)
    assert [event.json for event in events if event.type == "message"] == [{"input": "compact", "json": '"very"'}]
    assert [event.id for event in read_all(url, events[0].id)] == [event.id for event in events[1:]]


def test_client_that_leaves_frees_the_engine_unless_it_can_come_back(own_stack, gate):
    """It can if it reads event ids, or has sent a key."""
    stack = own_stack(EVERSTREAM_POST_ABANDON_AFTER_S="1", WEB_CONCURRENCY="1").start()
    script = json.dumps({"texts": ["a"], "hold_before": 1, "gate": gate.path})
    whole_body, stream_body = {"prompt": script}, {"prompt": script, "stream": True}
    waited_for = [
        (stream_body, {"Accept": "text/event-stream"}),
        (whole_body, {"Idempotency-Key": "0123456789abcdef-whole"}),
        (stream_body, {"Idempotency-Key": "0123456789abcdef-stream"}),
    ]
    for body, headers in [*waited_for, (whole_body, {}), (stream_body, {})]:
        leave(stack, body, headers)
    wait_for(lambda: stack.metric("generations_cancelled_total") == 2, what="the two to be abandoned")
    gate.open()
    wait_for(lambda: stack.metric("generations_done_total") == 3, what="the end of the others")
    for body, headers in waited_for[1:]:
        response = requests.post(f"{stack.url}/v1/completions", json=body, headers=headers, timeout=60)
        assert '"a"' in response.text
    assert stack.metric("generations_started_total") == 5


def leave(stack, body, headers):
    """Send a request, and close the connection once its generation has begun."""
    begun = stack.metric("generations_started_total")
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    wait_for(lambda: stack.metric("generations_started_total") == begun + 1, what="the generation to begin")
    connection.close()
