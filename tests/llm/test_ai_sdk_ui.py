"""The AI SDK's own chat and transports, unmodified, as a page has them: over killed workers, engines and connections.

Each chat is a call from `harness/sdk_clients/node`, and runs while its test breaks something.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from harness.chat_outputs import REASONING_TEXT_AND_CALL as OUTPUTS
from harness.chat_outputs import USAGE, end
from harness.stack import MODELS, running_stack, wait_for

KINDS = ["default", "workflow"]
TOOLS = {"weather": {"inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}}}}
PARTS = [
    ("step-start", None),
    ("reasoning", "Which city?"),
    ("text", "Let me look."),
    ("tool-weather", {"city": "Paris"}),
]
WORDS = [{"text": f"{n} "} for n in range(9)]
SAID = "".join(word["text"] for word in WORDS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """All parts, with a model that says what it scripts."""
    with running_stack(tmp_path_factory.mktemp("ui"), app_dir=MODELS / "chat", MODEL="chat") as stack:
        yield stack


def script(*outputs, **more):
    """A message that makes the model say this."""
    return json.dumps({"outputs": outputs, "end": {"usage": USAGE, **end("stop")}, **more})


@pytest.fixture
def ask(sdk, tmp_path):
    """Starts a chat's call and returns its future, once the chat has seen the text `until`."""
    with ThreadPoolExecutor(1) as pool:

        def begin(name, stack, until="", **given):
            marker = tmp_path / f"marker-{name}"
            given = {"until": until, "marker": str(marker), "responses": str(tmp_path / "responses"), **given}
            future = pool.submit(sdk, f"node.{name}", stack, given)
            if not until:
                return future
            wait_for(lambda: marker.exists() or future.done(), what="the chat to see the text")
            assert marker.exists(), future.result()
            return future

        yield begin


def user(text):
    return {"id": "1", "role": "user", "parts": [{"type": "text", "text": text}]}


def parts_of(message):
    shown = [(part["type"], part.get("text", part.get("input"))) for part in message["parts"]]
    assert all(part.get("state") in (None, "done", "input-available", "output-available") for part in message["parts"])
    return shown


def text_of(message):
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def assert_answered(report, text=SAID, count=2):
    """The chat has all of the text, once, and knows that it is complete."""
    assert (report["status"], report.get("error")) == ("ready", None)
    assert [message["role"] for message in report["messages"]] == ["user", "assistant"] * (count // 2)
    assert text_of(report["messages"][-1]) == text
    assert report["finishes"][-1]["finishReason"] == "stop"


def wait_for_response(number, folder):
    """Until that many of the chat's requests have been answered, as far as their headers."""
    file = folder / "responses"
    wait_for(lambda: file.exists() and file.read_text() == str(number), what=f"response {number}")


@pytest.mark.parametrize("kind", KINDS)
def test_answer(stack, sdk, kind):
    report = sdk("node.uiAsk", stack, {"kind": kind, "text": script(*OUTPUTS), "body": {"tools": TOOLS}})
    _, answer = report["messages"]
    assert parts_of(answer) == PARTS
    assert answer["id"].startswith("msg_")
    assert answer["metadata"]["usage"] == {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}
    assert report["finishes"] == [
        {"isAbort": False, "isDisconnect": False, "isError": False, "finishReason": "tool-calls"}
    ]
    assert report["requests"] == [["POST", "/api/chat", 200]]


@pytest.mark.parametrize("kind", KINDS)
def test_tool_round(stack, sdk, kind):
    """The client executes the call, and its result makes the next step of the same message."""
    bodies = [{"tools": TOOLS}, {}]
    given = {"kind": kind, "text": script(*OUTPUTS), "body": bodies, "results": {"weather": "18 degrees"}}
    report = sdk("node.uiAsk", stack, given)
    wanted = [*PARTS, ("step-start", None), ("text", "18 degrees")]
    # The second request goes on by itself after the first one has ended.
    _, answer = report["messages"]
    assert parts_of(answer) == wanted
    assert [each[:2] for each in report["requests"]] == [["POST", "/api/chat"]] * 2
    assert report["finishes"][-1]["finishReason"] == "stop"


@pytest.mark.parametrize("kind", KINDS)
def test_second_turn(stack, sdk, kind):
    first = sdk("node.uiAsk", stack, {"kind": kind, "text": "one two"})
    report = sdk("node.uiAsk", stack, {"kind": kind, "text": "three", "messages": first["messages"]})
    assert_answered(report, "three", count=4)


@pytest.mark.parametrize("outputs", [WORDS, OUTPUTS], ids=["text", "everything"])
def test_workflow_transport_over_killed_workers(own_stack, ask, gate, tmp_path, outputs):
    """It gives up only at the third reconnect in a row that is cut."""
    stack = own_stack(app_dir=MODELS / "chat").start()
    until = "3 " if outputs is WORDS else "Let me"
    text = script(*outputs, hold_before=5, gate=gate.path)
    asked = ask("uiAsk", stack, until, kind="workflow", text=text, body={"tools": TOOLS})
    for killed in range(1, 4):
        stack.kill_workers()
        wait_for_response(killed + 1, tmp_path)
    gate.open()
    report = asked.result()
    if outputs is WORDS:
        assert_answered(report)
    else:
        assert parts_of(report["messages"][-1]) == PARTS
    first, *others = report["requests"]
    assert first == ["POST", "/api/chat", 200]
    assert [(method, status) for method, _, status in others] == [("GET", 200)] * 3
    assert all(int(path.rpartition("startIndex=")[2]) > 0 for _, path, _ in others)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [WORDS, OUTPUTS], ids=["text", "everything"])
def test_killed_engine_is_a_pause(own_stack, ask, gate, kind, outputs):
    stack = own_stack(app_dir=MODELS / "chat").start()
    until = "3 " if outputs is WORDS else "Let me"
    text = script(*outputs, hold_before=5, gate=gate.path)
    asked = ask("uiAsk", stack, until, kind=kind, text=text, body={"tools": TOOLS})
    stack.engines[0].kill()
    stack.start_engine()
    gate.open()
    report = asked.result()
    if outputs is WORDS:
        assert_answered(report)
    else:
        assert parts_of(report["messages"][-1]) == PARTS
    assert len(report["requests"]) == 1


def test_default_transport_over_killed_workers(own_stack, ask, gate, tmp_path):
    """It reports the lost connection. `useChat` then asks for the chat's answer, and replaces what it has of it."""
    stack = own_stack(app_dir=MODELS / "chat").start()
    given = {"kind": "default", "id": "0123456789abcdef-lost", "text": script(*WORDS, hold_before=5, gate=gate.path)}
    asked = ask("uiAskAndResume", stack, "3 ", **given)
    stack.kill_workers()
    wait_for_response(2, tmp_path)
    gate.open()
    report = asked.result()
    assert (report["before"]["status"], report["before"]["finishes"][-1]["isError"]) == ("error", True)
    assert text_of(report["before"]["messages"][-1]) == "0 1 2 3 "
    assert_answered(report["after"])
    assert report["after"]["requests"][-1] == ["GET", "/api/chat/0123456789abcdef-lost/stream", 200]


@pytest.mark.parametrize("kind", KINDS)
def test_reload(stack, ask, sdk, gate, kind):
    """Another page, with the user's message alone, or with the part of the answer that it had."""
    chat = f"0123456789abcdef-reload-{kind}"
    text = script(*WORDS, hold_before=5, gate=gate.path)
    first = ask("uiStop", stack, "3 ", kind=kind, id=chat, text=text)
    kept = first.result()["messages"]
    assert text_of(kept[-1]) == "0 1 2 3 "
    again = ask("uiReload", stack, "2 ", kind=kind, id=chat, messages=kept)
    gate.open()
    assert_answered(again.result())
    # What has ended is not sent again, unless a page asks for it by its number.
    path = f"/api/chat/{chat}/stream"
    over = sdk("node.uiReload", stack, {"kind": "default", "id": chat, "messages": kept[:1]})
    assert (over["status"], over["requests"]) == ("ready", [["GET", path, 204]])
    whole = {"kind": "default", "id": chat, "messages": kept, "resumePath": f"{path}?startIndex=0"}
    assert_answered(sdk("node.uiReload", stack, whole))


def test_last_chunks_alone(own_stack, ask, gate, tmp_path):
    """A negative index, and then a lost connection: the transport works out its place from the header."""
    stack, chat = own_stack(app_dir=MODELS / "chat").start(), "0123456789abcdef-negative"
    text = script(*WORDS, hold_before=5, gate=gate.path)
    ask("uiStop", stack, "3 ", kind="workflow", id=chat, text=text).result()
    (tmp_path / "responses").unlink()
    again = ask("uiReload", stack, kind="workflow", id=chat, messages=[user(text)], startIndex=-2)
    wait_for_response(1, tmp_path)
    stack.kill_workers()
    wait_for_response(2, tmp_path)
    gate.open()
    report = again.result()
    # Of 7 chunks: start, start-step, text-start and four deltas.
    assert [path.rpartition("=")[2] for _, path, _ in report["requests"]] == ["-2", "7"]
    assert report["status"] == "ready"


@pytest.mark.parametrize("kind", KINDS)
def test_failure_is_an_error(stack, sdk, kind):
    report = sdk("node.uiAsk", stack, {"kind": kind, "text": "fail"})
    assert report["status"] == "error" and "told to fail" in report["error"]
    assert report["finishes"][-1]["isError"] and "finishReason" not in report["finishes"][-1]
    assert len(report["requests"]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_answer_is_an_error_for_others(stack, ask, gate, kind):
    chat = f"0123456789abcdef-stopped-{kind}"
    text = script(*WORDS, hold_before=5, gate=gate.path)
    asked = ask("uiAsk", stack, "3 ", kind=kind, id=chat, text=text)
    assert requests.post(f"{stack.url}/api/chat/{chat}/stop", timeout=60).status_code == 202
    report = asked.result()
    assert (report["status"], report["error"]) == ("error", "the generation was stopped before it ended (requested)")
    assert len(report["requests"]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_failed_run_is_not_asked_for_again_and_again(stack, sdk, kind):
    chat = f"0123456789abcdef-failed-{kind}"
    sdk("node.uiAsk", stack, {"kind": kind, "id": chat, "text": "fail"})
    report = sdk("node.uiReload", stack, {"kind": kind, "id": chat, "messages": [user("fail")]})
    assert len(report["requests"]) == 1
    assert report["status"] == ("ready" if kind == "default" else "error")


@pytest.mark.parametrize("kind", KINDS)
def test_refusal(stack, sdk, kind):
    report = sdk("node.uiAsk", stack, {"kind": kind, "text": "word " * 2000})
    assert report["status"] == "error" and "context_length_exceeded" in report["error"]
