"""AG-UI's own client and TanStack AI's, unmodified: over killed workers and engines, with tools, and after a reload."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.chat_outputs import REASONING_TEXT_AND_CALL as OUTPUTS
from harness.chat_outputs import USAGE, end, piece
from harness.stack import MODELS, running_stack, wait_for

FUNCTION = {"name": "weather", "arguments": '{"city": "Paris"}'}
CALLED = [("thinking", "Which city?"), ("text", "Let me look."), ("tool-call", {"city": "Paris"})]
WORDS = [{"text": f"{n} "} for n in range(9)]
SAID = "".join(word["text"] for word in WORDS)
RUN, THREAD = "a-run-of-the-client", "a-thread"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """All parts, with a model that says what it scripts."""
    with running_stack(tmp_path_factory.mktemp("ag-ui"), app_dir=MODELS / "chat", MODEL="chat") as stack:
        yield stack


@pytest.fixture
def ask(sdk, tmp_path):
    """Starts a chat's call and returns its future, once the chat has seen the text `until`."""
    with ThreadPoolExecutor(1) as pool:

        def begin(name, stack, until, **given):
            marker = tmp_path / f"marker-{name}"
            future = pool.submit(sdk, f"node.{name}", stack, {"until": until, "marker": str(marker), **given})
            wait_for(lambda: marker.exists() or future.done(), what="the chat to see the text")
            assert marker.exists(), future.result()
            return future

        yield begin


def script(*outputs, **more):
    """A message that makes the model say this."""
    return json.dumps({"outputs": outputs, "end": {"usage": USAGE, **end("stop")}} | more)


def parts_of(message):
    return [(part["type"], part.get("content", part.get("input"))) for part in message["parts"]]


def test_agent(stack, sdk):
    report = sdk("node.agentRun", stack, {"text": script(*OUTPUTS), "threadId": THREAD, "runId": RUN})
    first, *_, last = report["events"]
    assert first == {"type": "RUN_STARTED", "threadId": THREAD, "runId": RUN}
    assert last["outcome"] == {"type": "success", "pendingToolCallIds": ["call_0"]}
    assert last["usage"] == [{"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}]
    reasoning, answer = report["newMessages"]
    assert (reasoning["role"], reasoning["content"]) == ("reasoning", "Which city?")
    (made,) = answer["toolCalls"]
    assert (answer["content"], made["function"]) == ("Let me look.", FUNCTION)


def test_agents_next_turn(stack, sdk):
    first = sdk("node.agentRun", stack, {"text": script(*OUTPUTS)})
    messages = [*first["messages"], {"id": "r", "role": "tool", "toolCallId": "call_0", "content": "18 degrees"}]
    report = sdk("node.agentRun", stack, {"messages": messages, "text": "one two", "tools": []})
    assert [message["content"] for message in report["newMessages"]] == ["one two"]


def test_agent_learns_of_a_failure(stack, sdk):
    last = sdk("node.agentRun", stack, {"text": "fail"})["events"][-1]
    assert (last["type"], last["code"]) == ("RUN_ERROR", "model_error") and "told to fail" in last["message"]


def test_chat(stack, sdk):
    report = sdk("node.tanstackAsk", stack, {"text": script(*WORDS)})
    assert parts_of(report["messages"][-1]) == [("text", SAID)]
    assert report["requests"] == [["POST", "/api/ag-ui", 200, ""]] and "error" not in report


def test_chat_with_a_tool_of_the_client(stack, sdk):
    """The client executes the call, and by itself sends the result, which here scripts the answer."""
    report = sdk("node.tanstackAsk", stack, {"text": script(*OUTPUTS), "result": script(piece(text="18 degrees"))})
    _, called, answer = report["messages"]
    assert parts_of(called)[:3] == CALLED
    assert parts_of(answer) == [("text", "18 degrees")]
    assert len(report["requests"]) == 2


@pytest.mark.parametrize("outputs", [WORDS, OUTPUTS], ids=["text", "everything"])
def test_chat_over_killed_workers(own_stack, ask, gate, outputs):
    stack = own_stack(app_dir=MODELS / "chat", WEB_CONCURRENCY="1").start()
    until = "3 " if outputs is WORDS else "Let me"
    asked = ask("tanstackAsk", stack, until, text=script(*outputs, hold_before=5, gate=gate.path))
    for _ in range(3):
        stack.kill_workers()
        wait_for(lambda: stack.streams() == 1, what="the chat to come back")
    gate.open()
    report = asked.result()
    assert parts_of(report["messages"][-1]) == ([("text", SAID)] if outputs is WORDS else CALLED)
    first, *others = report["requests"]
    assert first == ["POST", "/api/ag-ui", 200, ""] and len(others) >= 3
    assert len({seen.partition(".")[0] for *_, seen in others}) == 1


def test_chat_over_a_killed_engine(own_stack, ask, gate):
    stack = own_stack(app_dir=MODELS / "chat").start()
    asked = ask("tanstackAsk", stack, "3 ", text=script(*WORDS, hold_before=5, gate=gate.path))
    stack.engines[0].kill()
    stack.start_engine()
    gate.open()
    report = asked.result()
    assert parts_of(report["messages"][-1]) == [("text", SAID)] and len(report["requests"]) == 1


def test_chat_of_a_page_that_is_loaded_again(stack, ask, gate):
    asked = ask("tanstackReload", stack, "3 ", text=script(*WORDS, hold_before=5, gate=gate.path))
    gate.open()
    report = asked.result()
    assert parts_of(report["messages"][-1]) == [("text", SAID)]
    (request,) = report["requests"]
    assert request[1].startswith("/api/ag-ui?offset=-1&runId=run-") and (request[0], request[2]) == ("GET", 200)


def test_chat_whose_connection_breaks_after_the_last_event(stack, sdk):
    report = sdk("node.tanstackAsk", stack, {"text": script(*WORDS), "break": True})
    assert parts_of(report["messages"][-1]) == [("text", SAID)] and "error" not in report
    assert [status for _, _, status, _ in report["requests"]] == [200, 200]


def test_call_that_was_cut_is_not_executed(stack, sdk):
    cut = {"text": script(OUTPUTS[-2], end={"usage": USAGE, **end("length")})}
    (made,) = [each for each in sdk("node.agentRun", stack, cut)["newMessages"] if each["role"] == "tool"]
    assert made["content"] == "Error: the arguments are not a JSON object"
    report = sdk("node.tanstackAsk", stack, cut | {"result": "18 degrees"})
    assert len(report["requests"]) == 1 and "error" not in report


def test_chat_learns_of_a_failure(stack, sdk):
    report = sdk("node.tanstackAsk", stack, {"text": "fail"})
    assert "told to fail" in report["error"] and len(report["requests"]) == 1
