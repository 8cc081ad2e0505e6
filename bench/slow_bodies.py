"""Health checks while thousands of clients send bodies byte by byte: `python -m bench.slow_bodies --help`.

Uses real gunicorn with two workers, and Valkey; no engine. Each client opens a connection, sends the headers of a POST
and then one byte per interval (`--kind headers`: it never even ends the headers), and never disconnects by itself.
Meanwhile /healthz is polled on the health port and on the main port. Prints a table.
"""

import argparse
import select
import socket
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import requests

from bench import load
from harness.stack import Stack, free_port

CONNECTING_AT_ONCE = 500
CHECK_EVERY_S = 0.2
CHECK_TIMEOUT_S = 5
STARTS = {
    "body": b"POST /generations HTTP/1.1\r\nHost: bench\r\nContent-Length: 100000\r\n\r\n{",
    "headers": b"POST /generations HTTP/1.1\r\nHost: bench\r\nX-Slow: ",
}


class Checks(threading.Thread):
    """Polls /healthz, each time over a new connection."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/healthz"
        self._over = threading.Event()
        self._ms, self._unanswered = [], 0

    def run(self):
        while not self._over.wait(CHECK_EVERY_S):
            started = time.perf_counter()
            try:
                requests.get(self._url, timeout=CHECK_TIMEOUT_S).raise_for_status()
                self._ms.append((time.perf_counter() - started) * 1000)
            except requests.RequestException:
                self._unanswered += 1

    def end(self):
        """Returns the answered and unanswered counts, and the median, 99th percentile and longest time in ms."""
        self._over.set()
        self.join()
        return len(self._ms), self._unanswered, *(load.percentile(self._ms, percent) for percent in (50, 99, 100))


class Clients:
    """All slow clients, in one process. `ended` counts the disconnected ones by the status they got."""

    def __init__(self, port, start):
        self.open, self.ended = {}, Counter()
        self._address, self._start = ("127.0.0.1", port), start
        self._connecting = set()
        self._poll = select.epoll()

    def connect(self, count):
        deadline = time.monotonic() + load.STUCK_S
        for _ in range(count):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex(self._address)
            self.open[connection.fileno()] = connection
            self._connecting.add(connection.fileno())
            self._poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)
            self.take(0)
            while len(self._connecting) > CONNECTING_AT_ONCE and time.monotonic() < deadline:
                self.take(0.1)

    def trickle(self):
        for connection in [each for fileno, each in self.open.items() if fileno not in self._connecting]:
            try:
                connection.send(b" ")
            except BlockingIOError:
                pass
            except OSError:
                self._end(connection, b"")

    def take(self, timeout_s):
        for fileno, _ in self._poll.poll(timeout_s):
            connection = self.open[fileno]
            try:
                if fileno in self._connecting:
                    connection.send(self._start)
                    self._connecting.discard(fileno)
                    self._poll.modify(fileno, select.EPOLLIN)
                else:
                    self._end(connection, connection.recv(65536))
            except OSError:
                self._end(connection, b"")

    def _end(self, connection, answer):
        """Disconnect. `answer` is the first thing the server sent."""
        self.ended[answer[9:12].decode() or "nothing"] += 1
        self._connecting.discard(connection.fileno())
        self._poll.unregister(connection.fileno())
        del self.open[connection.fileno()]
        connection.close()


def measure(stack, health_port, args):
    checks = {"the health port": Checks(health_port), "the main port": Checks(stack.port)}
    for each in checks.values():
        each.start()
    clients = Clients(stack.port, STARTS[args.kind])
    clients.connect(args.clients)
    until, next_byte = time.monotonic() + args.seconds, 0.0
    while time.monotonic() < until:
        clients.take(0.2)
        if time.monotonic() > next_byte:
            clients.trickle()
            next_byte = time.monotonic() + args.every_s
    return clients, {where: each.end() for where, each in checks.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_300)
    parser.add_argument("--every-s", type=float, default=5, help="interval between bytes of a client (5)")
    parser.add_argument("--seconds", type=float, default=30, help="how long to continue once all are connected (30)")
    parser.add_argument("--kind", choices=STARTS, default="body")
    args = parser.parse_args()
    load.allow_files(args.clients + 200)
    health_port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), EVERSTREAM_HEALTH_PORT=str(health_port))
        try:
            stack.start_valkey()
            stack.start_web()
            clients, found = measure(stack, health_port, args)
        finally:
            stack.stop()
    outcome = ", ".join(f"{count} got {what}" for what, count in sorted(clients.ended.items()))
    print(f"{args.clients} clients, 2 workers, {args.kind}, a byte every {args.every_s:g} s:")
    still = f"{len(clients.open)} were still connected {args.seconds:g} s after the last one connected"
    print(f"{outcome or 'none were disconnected'}; {still}\n")
    columns = ("/healthz at", "answered", f"not within {CHECK_TIMEOUT_S} s", "median, ms", "p99, ms", "longest, ms")
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * 5}")
    for where, (answered, unanswered, *ms) in found.items():
        print(f"| {where} | {answered} | {unanswered} | {' | '.join(f'{each:.0f}' for each in ms)} |")


if __name__ == "__main__":
    main()
