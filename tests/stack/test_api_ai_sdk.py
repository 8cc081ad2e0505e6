"""The AI SDK's UI message streams on the wire. `llm/test_ai_sdk_ui` reads them with the AI SDK itself."""

import http.client
import json
import signal
from contextlib import suppress

import psutil
import pytest
import requests

from harness.callers import Caller, keys
from harness.chat_outputs import REASONING_TEXT_AND_CALLS as OUTPUTS
from harness.chat_outputs import USAGE, end
from harness.sse_client import Decoder, connect, read_all
from harness.stack import MODELS, running_stack, wait_for

TIMEOUT_S = 60
QUESTION = "Why is the sky blue and the sea too?"
TOOLS = {"weather": {"inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}}


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    """All parts, with a model that takes the chat model's inputs, and echoes the prompt or says what it scripts."""
    settings = {"EVERSTREAM_HEARTBEAT_S": "0.5", "EVERSTREAM_POST_ABANDON_AFTER_S": "1"}
    with running_stack(tmp_path_factory.mktemp("chat"), app_dir=MODELS / "chat", MODEL="chat", **settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service with keys."""
    settings = {"EVERSTREAM_ACCESS": "keys", "WEB_CONCURRENCY": "1"}
    with running_stack(tmp_path_factory.mktemp("guarded"), app_dir=MODELS / "chat", **settings) as stack:
        yield stack


def user(text):
    return {"id": "1", "role": "user", "parts": [{"type": "text", "text": text}]}


def body_of(text=QUESTION, **more):
    return {"messages": [user(text)], **more}


def script(*outputs, **more):
    """A request for these outputs."""
    return body_of(json.dumps({"outputs": outputs, "end": {"usage": USAGE, **end("stop")}, **more}), tools=TOOLS)


def post(stack, body, **options):
    return requests.post(f"{stack.url}/api/chat", json=body, timeout=TIMEOUT_S, **options)


def resumed(stack, run, **query):
    return requests.get(f"{stack.url}/api/chat/{run}/stream", params=query, timeout=TIMEOUT_S)


def lines_of(response):
    """Each event's data, as it came."""
    assert response.status_code == 200, response.text
    return [event.data for event in Decoder().feed(response.content)]


def run_of(response):
    return response.headers["x-workflow-run-id"]


class Opened:
    """A stream that is read while it is open, as the transports ask for it."""

    def __init__(self, stack, path="", body=None):
        self._connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=TIMEOUT_S)
        data = None if body is None else json.dumps(body)
        self._connection.request("GET" if body is None else "POST", f"/api/chat{path}", data, {"Accept": "*/*"})
        self.local_port = self._connection.sock.getsockname()[1]
        self._response = self._connection.getresponse()
        self.headers, self.status = self._response.headers, self._response.status
        self.lines, self._decoder = [], Decoder()

    def read(self, until=lambda lines: False):
        while not until(self.lines) and (data := self._response.read1(65536)):
            self.lines += [event.data for event in self._decoder.feed(data)]
        return self.lines

    def read_until_cut(self):
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            self.read()
        return self.lines

    def close(self):
        self._response.close()
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            self.close()


def test_answer(chat):
    response = post(chat, body_of(id="0123456789abcdef-answer", trigger="submit-message"))
    *chunks, done = lines_of(response)
    start, step, *_, finish_step, finish = map(json.loads, chunks)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert (start, step["type"]) == ({"type": "start", "messageId": f"msg_{run_of(response)}"}, "start-step")
    deltas = [chunk["delta"] for chunk in map(json.loads, chunks) if chunk["type"] == "text-delta"]
    assert "".join(deltas) == QUESTION and len(deltas) == 9
    usage = {"inputTokens": 12, "outputTokens": 9, "totalTokens": 21}
    assert (finish_step, finish["finishReason"], finish["messageMetadata"]) == (
        {"type": "finish-step"},
        "stop",
        {"usage": usage},
    )
    assert done == "[DONE]"


def test_body_that_does_not_say_that_it_is_json(chat):
    """As `WorkflowChatTransport` sends it, from Node and from browsers."""
    own = {"Origin": chat.url, "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, own):
        text = {"Content-Type": "text/plain;charset=UTF-8"}
        response = requests.post(
            f"{chat.url}/api/chat", data=json.dumps(body_of()), headers=text | headers, timeout=TIMEOUT_S
        )
        assert lines_of(response)[-1] == "[DONE]"


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]
)
def test_page_of_another_site_starts_nothing(chat, headers):
    started = chat.metric("generations_started_total")
    for kind in ("text/plain", "application/json"):
        response = requests.post(
            f"{chat.url}/api/chat", data=json.dumps(body_of()), headers={"Content-Type": kind} | headers, timeout=60
        )
        assert (response.status_code, response.json()["error"]["code"]) == (403, "cross_origin")
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = requests.post(
            f"{chat.url}/api/chat", data=json.dumps(body_of()), headers={"Content-Type": kind}, timeout=60
        )
        assert response.status_code == 415
    assert chat.metric("generations_started_total") == started


@pytest.mark.parametrize("body", [body_of(), script(*OUTPUTS)], ids=["text", "everything"])
def test_for_every_k_the_first_k_chunks_and_the_rest_are_the_whole(chat, body):
    response = post(chat, body)
    run, whole = run_of(response), lines_of(response)
    count = len(whole) - 1
    assert lines_of(resumed(chat, run, startIndex=0)) == whole
    for k in range(count):
        assert whole[:k] + lines_of(resumed(chat, run, startIndex=k)) == whole
    over = resumed(chat, run, startIndex=count)
    assert (over.status_code, over.content) == (204, b"")


def test_start_index_from_the_end(chat):
    response = post(chat, script(*OUTPUTS))
    run, whole = run_of(response), lines_of(response)
    last = len(whole) - 2
    for back in (1, 5, last + 1, 1000):
        rest = resumed(chat, run, startIndex=-back)
        assert rest.headers["x-workflow-stream-tail-index"] == str(last)
        # As the transport works out where it is.
        assert lines_of(rest) == whole[max(last + 1 - back, 0) :]


def test_start_index_that_cannot_be(chat):
    run = run_of(post(chat, body_of()))
    lost = resumed(chat, run, startIndex=1000)
    assert (lost.status_code, lost.json()["error"]["code"]) == (400, "entries_lost")
    for index in ("", "a", "1.5", "--1", "0000", "9999999999"):
        refused = resumed(chat, run, startIndex=index)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "startIndex")


def test_killed_worker(chat, gate):
    body = script(*OUTPUTS, hold_before=6, gate=gate.path)
    # In the midst of a tool call, whose request is answered with its first output.
    with Opened(chat, body=body) as first:
        seen = first.read(until=lambda lines: "city" in lines[-1] if lines else False)
        psutil.Process(chat.worker_of(first.local_port)).kill()
        assert first.read_until_cut() == seen
    gate.open()
    wait_for(lambda: len(chat.workers()) == 2, what="a new worker")
    run = run_of(first)
    rest = lines_of(resumed(chat, run, startIndex=len(seen)))
    assert seen + rest == lines_of(resumed(chat, run, startIndex=0))
    assert rest[-1] == "[DONE]"


@pytest.mark.parametrize("outputs", [[{"text": f" {n}"} for n in range(6)], OUTPUTS], ids=["text", "everything"])
def test_killed_engine(own_stack, gate, outputs):
    stack = own_stack(app_dir=MODELS / "chat", WEB_CONCURRENCY="1").start()
    with Opened(stack, body=script(*outputs, hold_before=6, gate=gate.path)) as stream:
        seen = list(stream.read(until=lambda lines: len(lines) >= 7))
        stack.engines[0].kill()
        stack.start_engine()
        gate.open()
        whole = stream.read()
    assert whole[-1] == "[DONE]"
    assert seen + lines_of(resumed(stack, run_of(stream), startIndex=len(seen))) == whole


def test_worker_that_stops_breaks_the_connection(own_stack, gate):
    """A client that doesn't count chunks would take the end of the stream for that of the message."""
    stack = own_stack(app_dir=MODELS / "chat", WEB_CONCURRENCY="1", EVERSTREAM_DRAIN_S="0").start()
    with Opened(stack, body=script({"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path)) as stream:
        seen = stream.read(until=lambda lines: len(lines) == 4)
        stack.web.popen.send_signal(signal.SIGTERM)
        assert stream.read_until_cut() == seen
    stack.web.popen.wait(30)
    assert "Traceback" not in stack.web.output
    stack.start_web()
    gate.open()
    assert lines_of(resumed(stack, run_of(stream), startIndex=4))[0] == '{"type":"text-delta","id":"0","delta":"b"}'


def test_failure(chat):
    response = post(chat, body_of("fail"))
    *chunks, error = lines_of(response)
    assert chunks == lines_of(resumed(chat, run_of(response), startIndex=0))[:2]
    assert json.loads(error)["type"] == "error" and "told to fail" in error
    # Otherwise `WorkflowChatTransport` would ask for the rest forever.
    assert resumed(chat, run_of(response), startIndex=3).status_code == 204


@pytest.mark.parametrize("by_chat", [False, True])
def test_stop(chat, gate, by_chat):
    name = f"0123456789abcdef-stop-{by_chat}"
    with Opened(
        chat, body=script({"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path) | {"id": name}
    ) as stream:
        stream.read(until=lambda lines: len(lines) == 4)
        run = run_of(stream)
        path = f"{chat.url}/api/chat/{name if by_chat else run}/stop"
        stopped = requests.post(path, timeout=TIMEOUT_S)
        assert (stopped.status_code, stopped.json()) == (202, {"id": run, "state": "stopping"})
        *_, abort, error = stream.read()
    assert json.loads(abort)["type"] == "abort"
    assert json.loads(error)["errorText"] == "the generation was stopped before it ended (requested)"
    again = requests.post(path, timeout=TIMEOUT_S)
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert requests.post(f"{chat.url}/api/chat/{'0' * 32}/stop", timeout=TIMEOUT_S).status_code == 404


def test_client_that_closes_can_come_back(chat, gate):
    """`stop()` of the AI SDK, a reload and a lost connection are the same to a server."""
    cancelled = chat.metric("generations_cancelled_total")
    with Opened(chat, body=script({"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path)) as stream:
        seen = stream.read(until=lambda lines: len(lines) == 4)
    # One that can't come back, of another API, is given up first.
    other = {"model": "chat", "max_tokens": 9, **script({"text": "a"}, hold_before=1, gate=gate.path)}
    other = {**other, "messages": [{"role": "user", "content": other["messages"][0]["parts"][0]["text"]}], "tools": []}
    with requests.post(f"{chat.url}/v1/messages", json={**other, "stream": True}, stream=True, timeout=60):
        pass
    wait_for(lambda: chat.metric("generations_cancelled_total") > cancelled, what="the other generation's end")
    gate.open()
    assert lines_of(resumed(chat, run_of(stream), startIndex=len(seen)))[-1] == "[DONE]"


def test_chat_finds_its_newest_run_while_it_is_written(chat, gate):
    name = "0123456789abcdef-chat"
    assert resumed(chat, name).status_code == 204
    old = post(chat, body_of(id=name))
    assert resumed(chat, name).status_code == 204
    body = script({"text": "a"}, {"text": "b"}, hold_before=2, gate=gate.path) | {"id": name}
    with Opened(chat, body=body) as first, Opened(chat, f"/{name}/stream") as second:
        assert first.read(until=lambda lines: len(lines) == 4) == second.read(until=lambda lines: len(lines) == 4)
        gate.open()
        assert first.read() == second.read()
    assert run_of(second) == run_of(first) != run_of(old)
    assert resumed(chat, name).status_code == 204
    # Whoever counts chunks gets them also after the end.
    assert lines_of(resumed(chat, name, startIndex=3)) == first.lines[3:]
    # An older run is still there under its own id.
    assert lines_of(resumed(chat, run_of(old), startIndex=0)) == lines_of(old)


def test_chat_whose_name_could_be_guessed_finds_nothing(chat):
    for name in ("chat-1", "a" * 65, "chat with spaces", "chat:with:colons"):
        assert post(chat, body_of(id=name)).status_code == 200
        assert resumed(chat, name).status_code == 204
        assert resumed(chat, name, startIndex=0).status_code == 404


def test_unknown_run(chat):
    for run in ("0" * 32, "0123456789abcdef-unknown"):
        assert resumed(chat, run).status_code == 204
        unknown = resumed(chat, run, startIndex=0)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "generation_expired")


def test_runs_and_chats_are_their_owners_alone(guarded):
    alice, mallory = (Caller(guarded, keys(guarded, "add", name)) for name in ("alice", "mallory"))
    name = "the-same-chat-of-both"
    hers, others = (
        each.call("POST", "/api/chat", json=body_of(text, id=name))
        for each, text in ((alice, "hers"), (mallory, "others"))
    )
    for path, status in ((f"{run_of(hers)}/stream?startIndex=0", 404), (f"{run_of(hers)}/stream", 204)):
        assert mallory.call("GET", f"/api/chat/{path}").status_code == status
    assert mallory.call("POST", f"/api/chat/{run_of(hers)}/stop").status_code == 404
    for caller, own in ((alice, hers), (mallory, others)):
        assert caller.call("GET", f"/api/chat/{name}/stream?startIndex=0").content == own.content
    assert requests.get(f"{guarded.url}/api/chat/{name}/stream", timeout=TIMEOUT_S).status_code == 401


def test_results_of_tools_go_back(chat):
    """The next step goes into the client's message, also when it is read again."""
    part = {"type": "tool-weather", "toolCallId": "call_0", "state": "output-available"}
    answer = {"id": "2", "role": "assistant", "parts": [{**part, "input": {"city": "Paris"}, "output": "18 degrees"}]}
    response = post(chat, {"messages": [user(QUESTION), answer]})
    lines = lines_of(response)
    assert lines[0] == '{"type":"start"}'
    # The test model echoes the last turn.
    assert "".join(json.loads(line).get("delta", "") for line in lines[:-1]) == "18 degrees"
    assert lines_of(resumed(chat, run_of(response), startIndex=0)) == lines
    events = read_all(f"{chat.events_url(run_of(response))}?format=ui-message-stream")
    assert [event.data for event in events] == lines


def test_tools_are_called(chat):
    chunks = [json.loads(line) for line in lines_of(post(chat, body_of("Paris", tools=TOOLS)))[:-1]]
    (called,) = (chunk for chunk in chunks if chunk["type"] == "tool-input-available")
    assert (called["toolName"], called["input"]) == ("weather", {"said": "Paris"})
    assert chunks[-1]["finishReason"] == "tool-calls"


def test_eventsource_clients_get_ids_and_resume(chat):
    response = post(chat, script(*OUTPUTS), headers={"Accept": "text/event-stream"})
    uncut = Decoder().feed(response.content)
    url = f"{chat.url}/api/chat/{run_of(response)}/stream?startIndex=0"
    assert read_all(url) == uncut
    for cut, last in enumerate(uncut[:-1], 1):
        assert uncut[:cut] + read_all(url, last_id=last.id) == uncut
        again = post(chat, script(*OUTPUTS), headers={"Last-Event-ID": last.id})
        assert uncut[:cut] + Decoder().feed(again.content) == uncut
    assert b"\nid:" not in post(chat, script(*OUTPUTS)).content
    with connect(url, last_id=uncut[-1].id) as over:
        assert over.status == 204
    with connect(url, last_id=f"{'0' * 32}.1") as other:
        assert other.status == 400
    with connect(url.replace(run_of(response), "0" * 32), last_id=uncut[0].id) as unknown:
        assert unknown.status == 404


def test_same_key_same_run(chat):
    headers = {"Idempotency-Key": "0123456789abcdef-ai-sdk"}
    first, second = post(chat, body_of(), headers=headers), post(chat, body_of(), headers=headers)
    assert (run_of(first), first.content) == (run_of(second), second.content)
    other = post(chat, body_of("Something else"), headers=headers)
    assert (other.status_code, other.headers["x-should-retry"]) == (409, "false")


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"messages": None}, 400, "messages"),
        ({"model": "other"}, 404, "model"),
        ({"maxOutputTokens": -1}, 400, "maxOutputTokens"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
    ],
)
def test_refusals(chat, change, status, param):
    response = post(chat, body_of() | change)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


def test_what_has_no_effect_is_named(chat):
    response = post(chat, body_of(sessionId="s", temperature=0))
    assert response.headers["x-everstream-ignored"] == "sessionId"
