"""AG-UI's protocol on the wire. `llm/test_ag_ui` reads it with its official clients."""

import json
import signal

import pytest
import requests

from harness.callers import Caller, keys
from harness.chat_outputs import REASONING_TEXT_AND_CALLS as OUTPUTS
from harness.chat_outputs import USAGE, end
from harness.sse_client import Decoder, connect
from harness.stack import MODELS, running_stack, wait_for

TIMEOUT_S = 60
TOOLS = [{"name": "weather", "description": "Of a city", "parameters": {"type": "object"}}]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs, and echoes the prompt or says what it scripts."""
    settings = {"EVERSTREAM_HEARTBEAT_S": "0.5", "EVERSTREAM_POST_ABANDON_AFTER_S": "1", "MODEL": "chat"}
    with running_stack(tmp_path_factory.mktemp("chat"), app_dir=MODELS / "chat", **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service with keys."""
    settings = {"EVERSTREAM_ACCESS": "keys", "WEB_CONCURRENCY": "1"}
    with running_stack(tmp_path_factory.mktemp("guarded"), app_dir=MODELS / "chat", **settings) as stack:
        yield stack


def body_of(run, text="a b", **more):
    return {"threadId": "a-thread", "runId": run, "messages": [{"id": "1", "role": "user", "content": text}], **more}


def script(run, *outputs, **more):
    """A request for these outputs."""
    return body_of(run, json.dumps({"outputs": outputs, "end": {"usage": USAGE, **end("stop")}, **more}), tools=TOOLS)


def post(stack, body, **headers):
    return requests.post(f"{stack.url}/api/ag-ui", json=body, headers=headers, timeout=TIMEOUT_S)


def joined(stack, run, **headers):
    return requests.get(f"{stack.url}/api/ag-ui", params={"runId": run}, headers=headers, timeout=TIMEOUT_S)


def events_of(response):
    assert response.status_code == 200, response.text
    return Decoder().feed(response.content)


@pytest.mark.parametrize(
    "body", [body_of("a-run-of-text-alone"), script("a-run-of-everything", *OUTPUTS)], ids=["text", "everything"]
)
def test_after_every_event_both_requests_send_the_rest(chat, body):
    whole = events_of(post(chat, body))
    assert events_of(joined(chat, body["runId"])) == whole
    for cut, last in enumerate(whole[:-1], 1):
        seen = {"Last-Event-ID": last.id}
        assert whole[:cut] + events_of(post(chat, body, **seen)) == whole
        assert whole[:cut] + events_of(joined(chat, body["runId"], **seen)) == whole


def test_client_that_has_seen_all_gets_the_end_again(chat):
    """Whichever of its connection's last bytes are lost. It would take an empty answer for an error."""
    body = body_of("a-run-seen-to-its-end")
    last = events_of(post(chat, body))[-1]
    for response in (
        post(chat, body, **{"Last-Event-ID": last.id}),
        joined(chat, body["runId"], **{"Last-Event-ID": last.id}),
    ):
        (again,) = events_of(response)
        assert again.data == last.data and "id:" not in response.text


def test_request_that_is_sent_again_finds_its_run(chat):
    body = body_of("a-run-that-is-sent-twice")
    assert post(chat, body).text == post(chat, body).text
    other = post(chat, body_of(body["runId"], "another"))
    error = other.json()["error"]
    assert (other.status_code, error["code"], error["param"]) == (409, "request_id_conflict", "runId")
    properties = {"forwardedProps": {"request_id": "another-id-for-this-run"}}
    assert post(chat, body | properties).text == post(chat, body).text


def test_fields_without_effect_are_named(chat):
    response = post(chat, body_of("a-run-with-more", state={"a": 1}, forwardedProps={"mine": 1, "temperature": 0}))
    assert response.headers["x-everstream-ignored"] == "mine, state"


@pytest.mark.parametrize(
    ("query", "status"), [("runId=unknown-run-of-nobody", 404), ("runId=1", 404), ("", 400), ("offset=3", 400)]
)
def test_run_that_is_not_there(chat, query, status):
    assert requests.get(f"{chat.url}/api/ag-ui?{query}", timeout=TIMEOUT_S).status_code == status


def test_run_whose_name_could_be_guessed_is_not_found(chat):
    for name in ("run-1", "a" * 65, "a run with spaces in it"):
        assert post(chat, body_of(name)).status_code == 200
        assert joined(chat, name).status_code == 404


def test_event_of_another_run(chat):
    first, second = (events_of(post(chat, body_of(f"the-{which}-of-two-runs"))) for which in ("first", "second"))
    assert joined(chat, "the-first-of-two-runs", **{"Last-Event-ID": first[0].id}).status_code == 200
    refused = joined(chat, "the-first-of-two-runs", **{"Last-Event-ID": second[0].id})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_runs_are_their_owners_alone(guarded):
    alice, mallory = (Caller(guarded, keys(guarded, "add", name)) for name in ("alice", "mallory"))
    name = "the-same-run-of-both"
    hers = alice.call("POST", "/api/ag-ui", json=body_of(name, "hers"))
    assert mallory.call("GET", f"/api/ag-ui?runId={name}").status_code == 404
    assert mallory.call("DELETE", f"/api/ag-ui?runId={name}").status_code == 404
    others = mallory.call("POST", "/api/ag-ui", json=body_of(name, "others"))
    for caller, own in ((alice, hers), (mallory, others)):
        assert caller.call("GET", f"/api/ag-ui?runId={name}").content == own.content
    stolen = mallory.call("GET", f"/api/ag-ui?runId={name}", headers={"Last-Event-ID": events_of(hers)[0].id})
    assert stolen.status_code == 400
    assert requests.get(f"{guarded.url}/api/ag-ui?runId={name}", timeout=TIMEOUT_S).status_code == 401


def test_stop(chat, gate):
    body = script("a-run-that-is-stopped", {"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path)
    with connect(f"{chat.url}/api/ag-ui", body=body) as stream:
        stream.read(until=lambda seen: len(seen.events) == 3)
        url = f"{chat.url}/api/ag-ui?runId={body['runId']}"
        assert requests.delete(url, timeout=TIMEOUT_S).status_code == 202
        last = json.loads(stream.read().events[-1].data)
    assert (last["type"], last["outcome"]) == ("RUN_FINISHED", {"type": "cancelled"})
    again = requests.delete(url, timeout=TIMEOUT_S)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_client_that_leaves_can_come_back(chat, gate):
    cancelled = chat.metric("generations_cancelled_total")
    body = script("a-run-whose-client-leaves", {"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path)
    with connect(f"{chat.url}/api/ag-ui", body=body) as stream:
        stream.read(until=lambda seen: len(seen.events) == 3)
    # One that can't come back, of another API, is given up first.
    other = {"messages": body["messages"], "model": "chat", "stream": True}
    with requests.post(f"{chat.url}/v1/chat/completions", json=other, stream=True, timeout=TIMEOUT_S):
        pass
    wait_for(lambda: chat.metric("generations_cancelled_total") > cancelled, what="the other generation's end")
    gate.open()
    assert json.loads(events_of(joined(chat, body["runId"]))[-1].data)["type"] == "RUN_FINISHED"


def test_worker_that_stops_breaks_the_connection(own_stack, gate):
    """A client that doesn't resume would take the end of the stream for that of the run."""
    stack = own_stack(app_dir=MODELS / "chat", WEB_CONCURRENCY="1", EVERSTREAM_DRAIN_S="0").start()
    body = script("a-run-over-a-restart", {"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path)
    with connect(f"{stack.url}/api/ag-ui", body=body) as stream:
        stream.read(until=lambda seen: len(seen.events) == 3)
        stack.web.popen.send_signal(signal.SIGTERM)
        seen = stream.read_until_cut().events
    stack.web.popen.wait(30)
    stack.start_web()
    gate.open()
    rest = events_of(joined(stack, body["runId"], **{"Last-Event-ID": seen[-1].id}))
    assert json.loads(rest[0].data)["delta"] == "b"
