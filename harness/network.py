"""A network namespace whose link to this machine can go dead: packets vanish, and neither end gets a FIN or a RST.

The namespace lives as long as the process that holds it, which ends with this one, however it ends. With the namespace
go the link, its address and its rules, so nothing is left to clean up and nothing of the machine's own is changed.
"""

import itertools
import os
import re
import shlex
import shutil
import socket
import subprocess
from contextlib import contextmanager

PACKAGES = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables", "unshare": "util-linux", "nsenter": "util-linux"}
COMMAND_TIMEOUT_S = 30
# The addresses for benchmarks (RFC 2544), which no real network uses: four for each link.
FIRST_ADDRESS, SUBNETS = int.from_bytes(socket.inet_aton("198.18.0.0")), 2**15
DROP = """
add table inet lossy
add chain inet lossy receive { type filter hook input priority 0; }
add chain inet lossy send { type filter hook output priority 0; }
add rule inet lossy receive iifname != "lo" drop
add rule inet lossy send oifname != "lo" drop
"""
RESTORE = "delete table inet lossy"
# Everything that a link needs, inside a namespace that ends with the command.
PROBE = "ip link add probe type veth peer name probed && nft add table inet probe"
_numbers = itertools.count()


def obstacle():
    """Why there can be no link here, and the remedy; None if there is nothing in the way."""
    missing = [name for name in PACKAGES if shutil.which(name) is None]
    if missing:
        packages = sorted({PACKAGES[name] for name in missing})
        return f"{' and '.join(missing)} missing: apt-get install {' '.join(packages)}"
    probe = subprocess.run(["unshare", "--net", "sh", "-c", PROBE], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        return f"no network namespace without root (CAP_SYS_ADMIN and CAP_NET_ADMIN): {probe.stderr.strip()}"
    return None


class Link:
    """`address` is this machine's end: what listens on it can be reached from inside."""

    def __init__(self, pid, address):
        self.address = address
        self.inside = ["nsenter", "--target", str(pid), "--net", "--"]
        """Before a command, makes it run in the namespace."""

    def wrapper(self, path, command):
        """Write an executable file that runs a command, with the arguments that it gets, in the namespace."""
        path.write_text(f'#!/bin/sh\nexec {shlex.join([*self.inside, *map(str, command)])} "$@"\n')
        path.chmod(0o755)
        return path

    def drop(self):
        """From now on, packets vanish in both directions."""
        _run([*self.inside, "nft", "-f", "-"], DROP)

    def restore(self):
        _run([*self.inside, "nft", RESTORE])

    @contextmanager
    def dropped(self):
        self.drop()
        try:
            yield
        finally:
            self.restore()

    def lost(self):
        """How many packets of this machine's open connections over the link were lost and sent again."""
        rows = _run(["ss", "--no-header", "--tcp", "--info", "--oneline", "src", self.address])
        return sum(int(count) for count in re.findall(r"\bretrans:\d+/(\d+)", rows))


@contextmanager
def lossy_link():
    with _namespace() as pid:
        name = f"ev{os.getpid()}-{next(_numbers)}"
        _run(["ip", "link", "add", name, "type", "veth", "peer", "name", "link0", "netns", str(pid)])
        # An interface's number is unique on this machine, so parallel runs get different addresses.
        first = FIRST_ADDRESS + 4 * (socket.if_nametoindex(name) % SUBNETS)
        ours, theirs = (socket.inet_ntoa((first + host).to_bytes(4)) for host in (1, 2))
        link = Link(pid, ours)
        for place, device, address in (([], name, ours), (link.inside, "link0", theirs)):
            _run([*place, "ip", "address", "add", f"{address}/30", "dev", device])
            _run([*place, "ip", "link", "set", device, "up"])
        _run([*link.inside, "ip", "link", "set", "lo", "up"])
        yield link


@contextmanager
def _namespace():
    """The pid of a process in a new namespace. It reads a pipe, so it ends when this process does."""
    command = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            # Said from inside the namespace.
            holder.stdout.readline()
            yield holder.pid
        finally:
            holder.kill()


def _run(command, given=None):
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    return done.stdout
