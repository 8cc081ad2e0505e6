"""Clients that vanish: their link is dead, so neither a FIN nor a RST says that they are gone."""

import subprocess
import sys

import psutil
import pytest

from harness.stack import wait_for

READ = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as answer:
    while chunk := answer.read1():
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
"""


@pytest.mark.parametrize("path", ["/stream?texts=a&texts=b", "/dashboard/events"])
def test_client_that_vanished_holds_no_stream(own_stack, link, gate, path):
    stack = own_stack(
        EVERSTREAM_HOST=link.address,
        EVERSTREAM_SEND_TIMEOUT_S="2",
        EVERSTREAM_HEARTBEAT_S="1",
        WEB_CONCURRENCY="1",
    ).start()
    url = f"{stack.url}{path}" + (f"&hold_before=2&gate={gate.path}" if "?" in path else "")

    def connections():
        """From the other end of the link."""
        (worker,) = stack.workers()
        found = psutil.Process(worker).net_connections("tcp")
        return [each for each in found if each.raddr and each.raddr.ip != link.address]

    with subprocess.Popen([*link.inside, sys.executable, "-c", READ, url], stdout=subprocess.PIPE) as client:
        assert client.stdout.read(10)
        assert len(connections()) == 1
        with link.dropped():
            # Otherwise the kernel tries for a quarter of an hour.
            wait_for(lambda: not connections(), what="the end of the stream")
        client.kill()
    gate.open()
