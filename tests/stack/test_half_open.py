"""Clients that vanish: their link is dead, so neither a FIN nor a RST says that they are gone."""

import json
import subprocess
import sys
from contextlib import ExitStack
from urllib.parse import urlencode

import psutil
import pytest

from harness.chat_outputs import end, piece
from harness.stack import MODELS, wait_for

READ = """
import sys, urllib.request
url, *body = sys.argv[1:]
request = urllib.request.Request(url, body[0].encode() if body else None, {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    while answer.read1():
        pass
"""


def stream(prompt):
    return [f"/stream?{urlencode({'prompt': prompt})}"]


def answer_in_one_piece(prompt):
    """Nothing is sent to this client while it waits."""
    return ["/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": prompt}]})]


def dashboard(_):
    return ["/dashboard/events"]


@pytest.mark.parametrize("request_of", [stream, answer_in_one_piece, dashboard])
def test_client_that_vanished_holds_nothing(own_stack, link, gate, request_of):
    stack = own_stack(
        app_dir=MODELS / "chat",
        MODEL="chat",
        EVERSTREAM_HOST=link.address,
        EVERSTREAM_SEND_TIMEOUT_S="2",
        EVERSTREAM_HEARTBEAT_S="1",
        WEB_CONCURRENCY="1",
    ).start()

    def connections():
        """From the other end of the link."""
        (worker,) = stack.workers()
        found = psutil.Process(worker).net_connections("tcp")
        return [each for each in found if each.raddr and each.raddr.ip != link.address]

    script = {"outputs": [piece(text="a"), piece(text="b")], "hold_before": 2, "gate": gate.path, "end": end("stop")}
    path, *body = request_of(json.dumps(script, default=str))
    with (
        subprocess.Popen([*link.inside, sys.executable, "-c", READ, f"{stack.url}{path}", *body]) as client,
        ExitStack() as killed,
    ):
        killed.callback(client.kill)
        # What an open response needs is set by then.
        wait_for(lambda: connections() and (stack.running() == 1 or request_of is dashboard), what="the request")
        if request_of is stream:
            wait_for(lambda: stack.streams() == 1)
        with link.dropped():
            # Otherwise the kernel tries for a quarter of an hour.
            wait_for(lambda: not connections(), what="the end of the connection")
    gate.open()
