"""OpenAI's Responses API, through OpenAI's own client and on the wire. The unit tests cover each event."""

import json
import os
import signal

import openai
import pytest
import requests
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent

from harness.openai_types import validated
from harness.sse_client import Decoder, connect, read_all
from harness.stack import MODELS, wait_for, web_alone

QUESTION = "Why is the sky blue?"
TOOLS = [
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True},
    {"type": "function", "name": "now", "parameters": {"type": "object"}, "strict": False},
]
KEY = "0123456789abcdef-"


def post(stack, body, path="", **headers):
    return requests.post(f"{stack.url}/v1/responses{path}", json=body, headers=headers, timeout=60)


def get(stack, path, **query):
    return requests.get(f"{stack.url}/v1/responses/{path}", params=query, timeout=60)


def stream(stack, body, **headers):
    """The events of a stream, as a reader of Server-Sent Events sees them."""
    answer = post(stack, body | {"stream": True}, **{"Accept": "text/event-stream", **headers})
    assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.text
    return Decoder().feed(answer.content)


def events_after(stack, response_id, **query):
    return Decoder().feed(get(stack, response_id, stream="true", **query).content)


def held_script(gate="/there/is/no/such/file"):
    """A prompt whose answer stops after `one two` until the gate opens."""
    outputs = [{"text": text} for text in ("one", " two", " three")]
    return json.dumps({"outputs": outputs, "hold_before": 3, "gate": gate})


def held(stack, text=None):
    """The id of a background response that does not end by itself."""
    answer = post(stack, {"input": text or held_script(), "background": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def in_order(events):
    """The data of events whose numbers have no gaps, of OpenAI's types."""
    found = [validated(ResponseStreamEvent, event.data.encode()) for event in events]
    assert [event.sequence_number for event in found] == list(range(len(found)))
    return found


def test_whole_response(client, model):
    response = client.responses.create(model=model, input=QUESTION, instructions="Be terse.", metadata={"a": "b"})
    assert (response.output_text, response.status, response.model) == (QUESTION, "completed", model)
    assert (response.instructions, response.metadata) == ("Be terse.", {"a": "b"})
    assert (response.usage.input_tokens, response.usage.output_tokens) == (8, 5)
    validated(Response, response.to_json().encode())


def test_streamed_response(client, model):
    with client.responses.stream(model=model, input=QUESTION) as events:
        found = list(events)
        assert events.get_final_response().output_text == QUESTION
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert "".join(event.delta for event in found if event.type == "response.output_text.delta") == QUESTION


def test_reasoning_and_calls(client, model):
    asked = {"model": model, "input": QUESTION, "tools": TOOLS, "reasoning": {"effort": "low"}}
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as events:
        streamed = events.get_final_response()
    for response in (whole, streamed):
        thought, first, second = response.output
        assert thought.content[0].text == "Let me think."
        assert [(call.name, json.loads(call.arguments)) for call in (first, second)] == [
            ("weather", {"said": QUESTION}),
            ("now", {"said": QUESTION}),
        ]
        assert response.status == "completed"


def test_second_turn_with_the_output_sent_back(client, model):
    asked = [{"role": "user", "content": QUESTION}]
    first = client.responses.create(model=model, input=asked, tools=TOOLS, reasoning={"effort": "low"})
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "It is noon."}
        for item in first.output
        if item.type == "function_call"
    ]
    second = client.responses.create(model=model, input=[*asked, *first.output, *results])
    assert second.output_text == "It is noon."


def test_log_probabilities(client, model):
    response = client.responses.create(
        model=model, input=QUESTION, include=["message.output_text.logprobs"], top_logprobs=1
    )
    logprobs = response.output[0].content[0].logprobs
    assert "".join(logprob.token for logprob in logprobs) == QUESTION
    validated(Response, response.to_json().encode())


@pytest.mark.parametrize("is_stream", [False, True])
def test_length_limit_is_incomplete(chat, is_stream):
    body = {"input": QUESTION, "max_output_tokens": 2}
    if is_stream:
        last = stream(chat, body)[-1]
        assert last.type == "response.incomplete"
        response = last.json["response"]
    else:
        response = post(chat, body).json()
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "Why is"


def test_stream_is_openais_and_begins_with_an_event(chat):
    answer = post(chat, {"input": QUESTION, "stream": True})
    assert answer.content.startswith(b"event: response.created\ndata: {")
    assert b"\nid: " not in answer.content
    assert b"[DONE]" not in answer.content
    assert in_order(Decoder().feed(answer.content))[-1].type == "response.completed"


def test_stream_cut_after_any_event_is_resumed(chat):
    body = {"input": QUESTION, "tools": TOOLS, "reasoning": {"effort": "low"}}
    whole = stream(chat, body)
    in_order(whole)
    response_id = whole[0].json["response"]["id"]
    for seen in range(len(whole) - 1):
        rest = stream(chat, body, **{"Last-Event-ID": whole[seen].id})
        assert whole[: seen + 1] + rest == whole
        rest = events_after(chat, response_id, starting_after=seen)
        assert [event.data for event in rest] == [event.data for event in whole[seen + 1 :]]
    again = post(chat, body | {"stream": True}, **{"Last-Event-ID": whole[-1].id})
    assert (again.status_code, again.content) == (204, b"")
    assert events_after(chat, response_id, starting_after=len(whole) - 1) == []


def test_other_viewers_get_the_same_events(chat):
    whole = stream(chat, {"input": QUESTION, "metadata": {"a": "b"}})
    generation = whole[0].id.partition(".")[0]
    with connect(f"{chat.events_url(generation)}?format=responses") as viewer:
        assert viewer.read().events == whole
    assert [event.data for event in events_after(chat, f"resp_{generation}")] == [event.data for event in whole]


def test_late_joiner_gets_the_text_in_one_event(chat):
    whole = stream(chat, {"input": QUESTION, "background": True})
    response_id = whole[0].json["response"]["id"]
    for found in (
        events_after(chat, response_id, compact="true"),
        read_all(f"{chat.events_url(response_id.removeprefix('resp_'))}?format=responses&compact=true"),
    ):
        deltas = [event.json["delta"] for event in found if event.type == "response.output_text.delta"]
        assert deltas == ["Why", " is the sky blue?"]
        assert found[-1].json == whole[-1].json
    # For others nothing is joined, as numbers and ids would then name other texts.
    assert get(chat, response_id, stream="true", compact="true", starting_after="1").status_code == 400
    with connect(f"{chat.url}/v1/responses/{response_id}?stream=true&compact=true", whole[6].id) as viewer:
        assert viewer.read().events == whole[7:]


def test_generation_of_another_api_can_be_read_as_a_response(chat):
    generation = chat.submit(prompt=QUESTION)
    with connect(f"{chat.events_url(generation)}?format=responses") as viewer:
        events = in_order(viewer.read().events)
    assert events[-1].response.output_text == QUESTION
    assert get(chat, f"resp_{generation}").status_code == 404


def test_resume_of_another_request_is_refused(chat):
    events = stream(chat, {"input": QUESTION})
    answer = post(chat, {"input": "Else", "stream": True}, **{"Last-Event-ID": events[1].id})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_event_id_conflict")
    other = stream(chat, {"input": "Else"})
    url = f"{chat.url}/v1/responses/{other[0].json['response']['id']}?stream=true"
    answer = requests.get(url, headers={"Last-Event-ID": events[1].id}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_worker_killed_in_mid_stream(own_stack, gate):
    stack = own_stack(app_dir=MODELS / "chat").start()
    response_id = held(stack, held_script(gate.path))
    url = f"{stack.url}/v1/responses/{response_id}?stream=true"
    with connect(url) as viewer:
        viewer.read(lambda connection: len(connection.events) >= 7)
        os.kill(stack.worker_of(viewer.local_port), signal.SIGKILL)
        viewer.read_until_cut()
    gate.open()
    rest = wait_for(lambda: _read(f"{url}&starting_after={len(viewer.events) - 1}"), what="the other worker")
    last = in_order([*viewer.events, *rest])[-1]
    assert (last.type, last.response.output_text) == ("response.completed", "one two three")


def _read(url):
    try:
        with connect(url) as viewer:
            return viewer.read().events
    except ConnectionError:
        return None


def test_stored_response_can_be_retrieved(client, model):
    created = client.responses.create(model=model, input=QUESTION)
    assert client.responses.retrieve(created.id).to_json() == created.to_json()
    streamed = client.responses.retrieve(created.id, stream=True, starting_after=2)
    assert next(event.sequence_number for event in streamed) == 3


@pytest.mark.parametrize("path", ["", "/input_items", "/cancel", "?stream=true"])
def test_response_that_is_not_stored_is_unknown(chat, path):
    created = post(chat, {"input": QUESTION, "store": False}).json()["id"]
    call = post if path == "/cancel" else get
    for response_id in (created, f"resp_{'0' * 32}", "resp_x"):
        address = f"/{response_id}{path}" if call is post else f"{response_id}{path}"
        answer = call(chat, None, address) if call is post else get(chat, address)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "response_not_found")
    assert requests.delete(f"{chat.url}/v1/responses/{created}", timeout=60).status_code == 404


def test_stream_that_is_not_stored_can_still_be_resumed(chat):
    whole = stream(chat, {"input": QUESTION, "store": False, "metadata": {"a": "b"}})
    rest = stream(chat, {"input": QUESTION, "store": False}, **{"Last-Event-ID": whole[0].id})
    assert [whole[0], *rest] == whole


def test_background_response(client, model):
    created = client.responses.create(model=model, input=QUESTION, background=True)
    assert (created.status, created.output, created.background) == ("queued", [], True)
    statuses = []

    def is_over():
        found = client.responses.retrieve(created.id)
        validated(Response, found.to_json().encode())
        statuses.append(found.status)
        return found.status == "completed" and found

    assert wait_for(is_over).output_text == QUESTION
    assert set(statuses) <= {"queued", "in_progress", "completed"}


def test_background_stream(client, model):
    events = list(client.responses.create(model=model, input=QUESTION, background=True, stream=True))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert events[-1].response.output_text == QUESTION


def test_background_response_outlives_its_readers(own_stack):
    """A plain one is abandoned when its client goes."""
    limits = {"EVERSTREAM_ABANDON_AFTER_S": "1", "EVERSTREAM_POST_ABANDON_AFTER_S": "1", "EVERSTREAM_LEASE_S": "0.6"}
    stack = own_stack(app_dir=MODELS / "chat", **limits).start()
    response_id = held(stack)
    body = {"input": held_script(), "stream": True}
    with requests.post(f"{stack.url}/v1/responses", json=body, timeout=60, stream=True) as answer:
        lines = answer.iter_lines()
        plain_id = json.loads(next(line for line in lines if line.startswith(b"data: "))[6:])["response"]["id"]
    # To ask for a response would be to read it.
    wait_for(lambda: stack.metric("generations_cancelled_total") == 1, what="the plain one's end")
    assert get(stack, plain_id).json()["status"] == "cancelled"
    assert get(stack, response_id).json()["status"] == "in_progress"
    assert post(stack, None, f"/{response_id}/cancel").json()["status"] == "cancelled"


def test_queued_response(tmp_path):
    """No engine is there to claim it."""
    with web_alone(tmp_path, app_dir=MODELS / "chat") as stack:
        response_id = held(stack)
        assert get(stack, response_id).json()["status"] == "queued"
        with connect(f"{stack.url}/v1/responses/{response_id}?stream=true") as viewer:
            viewer.read(lambda connection: len(connection.events) >= 3)
        assert [event.type for event in viewer.events] == ["response.created", *["response.queued"] * 2]
        cancelled = post(stack, None, f"/{response_id}/cancel").json()
        assert (cancelled["status"], cancelled["output"]) == ("cancelled", [])


def test_cancel(client, chat):
    response_id = held(chat)
    with connect(f"{chat.url}/v1/responses/{response_id}?stream=true") as viewer:
        viewer.read(lambda connection: len(connection.events) >= 7)
    # It has said something, but a response has no output before its end.
    found = client.responses.retrieve(response_id)
    assert (found.status, found.output) == ("in_progress", [])
    cancelled = client.responses.cancel(response_id)
    assert (cancelled.status, cancelled.error, cancelled.output_text) == ("cancelled", None, "one two")
    validated(Response, cancelled.to_json().encode())
    assert client.responses.cancel(response_id).to_json() == cancelled.to_json()
    assert client.responses.retrieve(response_id).status == "cancelled"


def test_only_background_responses_can_be_cancelled(chat):
    created = post(chat, {"input": QUESTION}).json()["id"]
    answer = post(chat, None, f"/{created}/cancel")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "Cannot cancel a synchronous response.")


def test_deleted_response_is_gone(client, chat, model):
    created = client.responses.create(model=model, input=QUESTION)
    client.responses.delete(created.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(created.id)
    generation = created.id.removeprefix("resp_")
    assert requests.get(f"{chat.url}/generations/{generation}", timeout=60).status_code == 404


def test_deleted_response_stops(client, chat):
    response_id = held(chat)
    client.responses.delete(response_id)
    assert get(chat, response_id).status_code == 404
    wait_for(lambda: chat.running() == 0, what="the end of the deleted one")


def test_input_items(client, model):
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "a"}], "type": "message"}
    asked = [
        {"role": "developer", "content": "x"},
        {"role": "user", "content": "y"},
        said,
        {"role": "user", "content": "z"},
    ]
    created = client.responses.create(model=model, input=asked)
    items = list(client.responses.input_items.list(created.id, limit=2, order="asc"))
    assert [(item.role, item.content[0].text) for item in items] == [
        ("developer", "x"),
        ("user", "y"),
        ("assistant", "a"),
        ("user", "z"),
    ]
    newest = client.responses.input_items.list(created.id, limit=1)
    assert (newest.data[0].content[0].text, newest.has_more) == ("z", True)
    validated(ResponseItemList, newest.to_json().encode())


def test_conversation_goes_on(client, model):
    first = client.responses.create(model=model, input="One", instructions="Be terse.")
    second = client.responses.create(model=model, input="Two", previous_response_id=first.id)
    third = client.responses.create(model=model, input="Three", previous_response_id=second.id, instructions="Be kind.")
    items = client.responses.input_items.list(third.id, order="asc").data
    assert [(item.role, item.content[0].text) for item in items] == [
        ("user", "One"),
        ("assistant", "One"),
        ("user", "Two"),
        ("assistant", "Two"),
        ("user", "Three"),
    ]
    assert (second.instructions, third.previous_response_id) == (None, second.id)
    # The model counts the last message's words; what it was given shows in the generation's own record alone.
    assert items[1].id == first.output[0].id


def test_calls_and_their_results_go_on_too(client, model):
    first = client.responses.create(model=model, input=QUESTION, tools=TOOLS)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "noon"} for call in first.output]
    second = client.responses.create(model=model, input=results, previous_response_id=first.id)
    assert second.output_text == "noon"
    types = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert types == ["message", *["function_call"] * 2, *["function_call_output"] * 2]


def test_reference_to_an_item(client, model):
    """As AI SDK sends it."""
    first = client.responses.create(model=model, input="One")
    asked = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "Two"}]
    second = client.responses.create(model=model, input=asked)
    items = client.responses.input_items.list(second.id, order="asc").data
    assert [item.content[0].text for item in items] == ["One", "Two"]
    many = [{"type": "item_reference", "id": f"msg_{n:032x}_0"} for n in range(65)]
    with pytest.raises(openai.BadRequestError, match="more than 64"):
        client.responses.create(model=model, input=many)


@pytest.mark.parametrize("previous", ["unknown", "not stored"])
def test_previous_response_that_is_not_there(client, model, previous):
    response_id = f"resp_{'0' * 32}"
    if previous == "not stored":
        response_id = client.responses.create(model=model, input="One", store=False).id
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model=model, input="Two", previous_response_id=response_id)
    assert (raised.value.code, raised.value.param) == ("previous_response_not_found", "previous_response_id")


def test_previous_response_has_to_end_first(chat):
    response_id = held(chat)
    answer = post(chat, {"input": "Two", "previous_response_id": response_id})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "previous_response_id")
    post(chat, None, f"/{response_id}/cancel")


def test_same_key_attaches_to_the_same_response(chat):
    body = {"input": QUESTION, "metadata": {"a": "1"}}
    headers = {"Idempotency-Key": f"{KEY}whole"}
    first = post(chat, body, **headers).json()
    # The fields that the model does not see are those of the first request.
    assert post(chat, body | {"metadata": {"a": "2"}}, **headers).json() == first
    other = post(chat, body | {"input": "Else"}, **headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "request_id_conflict")
    headers = {"Idempotency-Key": f"{KEY}stream"}
    assert stream(chat, body, **headers) == stream(chat, body, **headers)
    headers = {"Idempotency-Key": f"{KEY}background"}
    first = post(chat, body | {"background": True}, **headers).json()
    assert wait_for(lambda: get(chat, first["id"]).json()["status"] == "completed")
    again = post(chat, body | {"background": True}, **headers).json()
    assert (again["id"], again["status"]) == (first["id"], "completed")


def test_failed_response(client, chat, model):
    with pytest.raises(openai.InternalServerError, match="told to fail"):
        client.responses.create(model=model, input="fail")
    events = in_order(stream(chat, {"input": "fail"}))
    assert [event.type for event in events] == ["response.created", "response.in_progress", "response.failed"]
    failed = events[-1].response
    assert (failed.status, failed.error.code, failed.error.type) == ("failed", "server_error", "model_error")
    assert client.responses.retrieve(failed.id).error == failed.error
    refused = in_order(stream(chat, {"input": "refuse"}))[-1].response.error
    assert (refused.code, refused.type, refused.param) == ("invalid_prompt", "context_length_exceeded", "input")
    error = post(chat, {"input": "refuse"}).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": None}, "input", "missing"),
        ({"input": "word " * 3000}, "input", "tokens"),
        ({"input": [{"role": "user", "content": "x" * 5000}, {"type": "nonsense"}]}, "input[1]", "nonsense"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "web_search"),
        ({"max_output_tokens": -1}, "max_output_tokens", "from 0"),
        ({"temperature": 3}, "temperature", "from 0"),
        ({"conversation": "conv_1"}, "conversation", "not supported"),
        ({"model": "gpt"}, "model", "gpt"),
    ],
)
def test_what_cant_be_honoured_is_refused(chat, body, param, message):
    answer = post(chat, {"input": QUESTION} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404 if param == "model" else 400, param), error
    assert message in error["message"]


def test_ignored_fields_are_named(chat):
    answer = post(chat, {"input": QUESTION, "user": "me", "reasoning": {"summary": "auto"}, "unheard_of": 1})
    assert answer.status_code == 200
    assert sorted(answer.headers["x-everstream-ignored"].split(", ")) == ["reasoning.summary", "unheard_of", "user"]


@pytest.mark.parametrize("query", [{"starting_after": "x"}, {"starting_after": "-1"}])
def test_bad_queries_are_refused(chat, query):
    created = post(chat, {"input": QUESTION}).json()["id"]
    answer = get(chat, created, stream="true", **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


def test_heartbeats_are_events(chat):
    """Clients with a timer count events, not comments."""
    response_id = held(chat)
    with connect(f"{chat.url}/v1/responses/{response_id}?stream=true&starting_after=6") as viewer:
        viewer.read(lambda connection: len(connection.events) >= 2)
    post(chat, None, f"/{response_id}/cancel")
    assert [(event.type, event.id) for event in viewer.events] == [("response.in_progress", "")] * 2
    assert {event.json["sequence_number"] for event in viewer.events} == {6}
