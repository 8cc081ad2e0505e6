"""The network namespace that tests of dead links use."""

import os
import shutil
import socket
import subprocess

import pytest

from harness import network
from harness.stack import wait_for


def interfaces():
    """Those of this process's links; other test processes have links too."""
    return {name for _, name in socket.if_nameindex() if name.startswith(f"ev{os.getpid()}-")}


@pytest.fixture
def connection(link):
    """This machine's end of a connection over the link. The other end sends back what it reads."""
    with socket.create_server((link.address, 0)) as server:
        host, port = server.getsockname()
        echo = [*link.inside, "bash", "-c", f"exec 3<>/dev/tcp/{host}/{port}; cat <&3 >&3"]
        with subprocess.Popen(echo) as client:
            server.settimeout(30)
            connection, _ = server.accept()
            connection.settimeout(30)
            with connection:
                yield connection
            client.kill()


def test_packets_vanish_until_the_link_is_restored(link, connection):
    connection.sendall(b"a")
    assert connection.recv(9) == b"a"
    with link.dropped():
        connection.sendall(b"b")
        wait_for(lambda: link.lost() > 0, what="a packet that was sent in vain")
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(9)
    connection.settimeout(30)
    assert connection.recv(9) == b"b"


def test_links_are_apart_and_leave_nothing(link):
    before = interfaces()
    with network.lossy_link() as first, network.lossy_link() as second:
        assert len({link.address, first.address, second.address}) == 3
        assert len(interfaces() - before) == 2
    wait_for(lambda: interfaces() == before, what="the interfaces to go")


def test_obstacle_names_what_is_missing(monkeypatch):
    without_nft = lambda name: None if name == "nft" else f"/usr/sbin/{name}"  # noqa: E731
    monkeypatch.setattr(shutil, "which", without_nft)
    assert network.obstacle() == "nft missing: apt-get install nftables"


def test_obstacle_without_root(monkeypatch, tmp_path):
    """As on a machine where `unshare` is refused."""
    (tmp_path / "unshare").write_text("#!/bin/sh\necho Operation not permitted >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert "without root" in network.obstacle() and "Operation not permitted" in network.obstacle()
