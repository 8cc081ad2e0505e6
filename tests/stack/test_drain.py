"""A web process that is told to stop: which clients move on at once, and which get the rest of their answer."""

import http.client
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import psutil
import pytest
import requests

from harness.chat_outputs import piece
from harness.openai_client import openai_client
from harness.sse_client import assert_whole, connect, follow_to_the_end, text_of
from harness.stack import MODELS, wait_for
from tests.stack.test_api_anthropic import script


@pytest.fixture
def begun(own_stack, gate):
    """A function that starts a stack with one worker."""

    def start(drain_s, **environ):
        environ |= {"WEB_CONCURRENCY": "1", "EVERSTREAM_DRAIN_S": drain_s}
        stack = own_stack(app_dir=MODELS / "chat", MODEL="chat", **environ).start()
        stack.messages = script(piece(text="a"), piece(text="b"), hold_before=2, gate=str(gate.path))["messages"]
        return stack

    return start


def answering(stack):
    """The pid of the worker that takes a new connection."""
    return requests.get(f"{stack.url}/healthz", timeout=30).json()["pid"]


def is_pending(pid, number):
    """Whether a signal waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    return any(int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^\w{3}Pnd:\s*(\w+)$", status, re.MULTILINE))


def master_answering(stack, other_than):
    """The master of the worker that takes a new connection, unless it is `other_than`."""
    master = psutil.Process(answering(stack)).parent()
    return None if master == other_than else master


def test_answers_that_cannot_be_resumed_are_finished(begun, gate):
    stack = begun("60")
    old = stack.workers()
    generation = stack.submit(prompt=stack.messages[0]["content"])
    url = stack.events_url(generation)
    with (
        openai_client(stack) as client,
        ThreadPoolExecutor() as pool,
        connect(url) as resumable,
        connect(url, headers={"Accept": "*/*"}) as plain,
    ):
        chunks = client.chat.completions.create(model="chat", messages=stack.messages, stream=True)
        pieces = (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert next(each for each in pieces if each) == "a"
        whole = pool.submit(client.chat.completions.create, model="chat", messages=stack.messages)
        wait_for(lambda: stack.running() == 3)
        plain.read(until=lambda seen: len(seen.events) == 2)

        stack.web.popen.send_signal(signal.SIGHUP)
        moved = resumable.read().events
        assert text_of(moved) == "a"
        wait_for(lambda: answering(stack) not in old, what="a new worker")
        assert not whole.done()

        gate.open()
        assert "".join(pieces) == "b"
        assert whole.result(60).choices[0].message.content == "ab"
        assert_whole(plain.read().events)
    assert_whole(moved + follow_to_the_end(url, resumable.decoder.last_id)[0])
    wait_for(lambda: not set(stack.workers()) & set(old), what="the end of the old worker")
    assert "graceful timeout" not in stack.web.output


def test_client_that_leaves_meanwhile(begun, gate):
    """The stream ends then, and the log does not blame the worker for it."""
    stack = begun("60")
    (old,) = stack.workers()
    with openai_client(stack) as client:
        chunks = client.chat.completions.create(model="chat", messages=stack.messages, stream=True)
        assert next(chunks).choices
        stack.web.popen.send_signal(signal.SIGHUP)
        wait_for(lambda: answering(stack) != old, what="a new worker")
        chunks.close()
    wait_for(lambda: old not in stack.workers(), what="the end of the old worker")
    assert '"ended": "left"' in stack.web.output
    assert '"ended": "drained"' not in stack.web.output
    gate.open()


def test_request_that_arrives_as_the_worker_stops(begun, gate):
    """The worker stops reading from connections between two requests, but must not take that for their clients' end."""
    stack = begun("60")
    (old,) = stack.workers()
    connections = [http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60) for _ in range(20)]
    for connection in connections:
        connection.request("GET", "/healthz")
        connection.getresponse().read()
    os.kill(old, signal.SIGSTOP)
    body = json.dumps({"model": "chat", "messages": stack.messages, "stream": True})
    for connection in connections:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    stack.web.popen.send_signal(signal.SIGHUP)
    wait_for(lambda: is_pending(old, signal.SIGTERM), what="the signal to be sent")
    os.kill(old, signal.SIGCONT)
    wait_for(lambda: answering(stack) != old, what="an answer from the new worker")
    gate.open()
    for connection in connections:
        answer = connection.getresponse().read()
        assert b'"content":"b"' in answer
        assert answer.endswith(b"data: [DONE]\n\n")
        connection.close()


def test_new_master_takes_over(begun, gate):
    """A new version is started with the old one's sockets, and then the old one is told to stop."""
    # A new master of gunicorn does not close its first objects for the inherited sockets.
    stack = begun("60", PYTHONWARNINGS="error,ignore::ResourceWarning")
    old = psutil.Process(stack.web.pid)
    with openai_client(stack) as client:
        chunks = client.chat.completions.create(model="chat", messages=stack.messages, stream=True)
        pieces = (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert next(each for each in pieces if each) == "a"
        old.send_signal(signal.SIGUSR2)
        new = wait_for(lambda: master_answering(stack, other_than=old), what="the new master")
        try:
            old.terminate()
            gate.open()
            assert "".join(pieces) == "b"
            stack.web.popen.wait(30)
            assert answering(stack) in [child.pid for child in new.children()]
        finally:
            new.terminate()
            new.wait(30)
    assert "Traceback" not in stack.web.output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_drain_has_an_end(begun, gate, number):
    """Then those that were cut are told so, and the process has ended."""
    stack = begun("0.5")
    with openai_client(stack) as client, ThreadPoolExecutor() as pool:
        chunks = client.chat.completions.create(model="chat", messages=stack.messages, stream=True)
        assert next(chunks).choices
        whole = pool.submit(client.chat.completions.create, model="chat", messages=stack.messages)
        wait_for(lambda: stack.running() == 2)
        old = stack.workers()
        stack.web.popen.send_signal(number)
        with pytest.raises(openai.APIError, match="shutting down"):
            list(chunks)
        with pytest.raises(openai.InternalServerError, match="shutting down") as caught:
            whole.result(60)
        assert caught.value.status_code == 503
    if number == signal.SIGTERM:
        assert stack.web.popen.wait(30) == 0
    else:
        wait_for(lambda: not set(stack.workers()) & set(old), what="the end of the old worker")
    gate.open()
    assert "Traceback" not in stack.web.output
