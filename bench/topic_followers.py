"""Followers of topics, for `bench.topics`: a process with one epoll that holds thousands of connections and checks what
arrives on each.

The messages have numbers, 1, 2, 3…, per topic, and the time when they were published (`message`), so that the process
counts lost and repeated ones and measures how late they are. It costs less per message than the servers, which share
the machine with it.
"""

import json
import multiprocessing
import re
import select
import socket
import time
from array import array
from collections import Counter

from bench import load

WINDOW = 20
"""How many messages a publisher may be ahead of the followers at saturation."""
READ_BYTES = 1 << 16
BATCH = 100
"""Connections are opened in batches of this size; four are below the backlog of a listening socket."""
_OK = re.compile(rb"HTTP/1\.[01] 200 .*\r\ncontent-type: text/event-stream", re.IGNORECASE | re.DOTALL)
_MESSAGE = re.compile(rb'"n":(\d+),"at":(\d+),"end"')
_TEXT = "The quick brown fox jumps over the lazy dog, and then over the next."


def message(n):
    """The data of a topic's message n, about 120 bytes of compact JSON."""
    return json.dumps({"text": _TEXT, "n": n, "at": time.perf_counter_ns(), "end": True}, separators=(",", ":"))


class Refused(Exception):
    """The server's answer is no event stream."""


class Follower:
    """One connection. `last` is the number of the newest message; None before the first."""

    __slots__ = ("last", "request", "socket", "status", "tail", "topic")

    def __init__(self, topic, request, connection):
        self.topic, self.request, self.socket = topic, request, connection
        self.status, self.last, self.tail = False, None, b""


class Tally:
    """What followers got. Without I/O."""

    def __init__(self):
        self.late_ns, self.newest_at_ns = array("q"), 0
        self.lost = self.repeated = 0

    def take(self, follower, data, now_ns):
        """The bytes of one read. Raises Refused."""
        if follower.tail:
            data = follower.tail + data
        if not follower.status:
            if b"\r\n\r\n" not in data:
                follower.tail = data
                return
            if not _OK.match(data):
                raise Refused(f"a follower was answered {data[:300]!r}")
            follower.status = True
        self.newest_at_ns = now_ns
        for number, at in _MESSAGE.findall(data):
            self._count(follower, int(number), now_ns - int(at))
        follower.tail = b"" if data.endswith(b"\n") else _unfinished(data)

    def _count(self, follower, n, late_ns):
        last = follower.last
        if last is not None and n <= last:
            self.repeated += 1
            return
        if last is not None:
            self.lost += n - last - 1
        follower.last = n
        self.late_ns.append(late_ns)


def _unfinished(data):
    """The part of the data that may be the beginning of a message."""
    at = data.rfind(b'"n":')
    return data[-3:] if at < 0 or _MESSAGE.match(data, at) else data[at:]


class Followers:
    """The process's side. Its methods are called through `FollowersProcess.call`."""

    def __init__(self, pipe, received):
        self._pipe, self._received = pipe, received
        self._epoll, self._open, self._tally = select.epoll(), {}, Tally()
        self._cut = 0

    def run(self):
        self._epoll.register(self._pipe.fileno(), select.EPOLLIN)
        while True:
            self._poll(1)
            while self._pipe.poll():
                name, *arguments = self._pipe.recv()
                self._pipe.send(getattr(self, name)(*arguments))

    def open(self, address, paths, answers_at_once):
        """Connect to all of these (topic, path). `answers_at_once`: the server sends the head of its answer before the
        first message. Returns how many are open."""
        opening = []
        for at, (topic, path) in enumerate(paths):
            opening.append(self._connect(address, at, topic, path))
            if at % BATCH == 0:
                self._poll_while(lambda: self._busy(opening[-4 * BATCH :], answers_at_once) > 2 * BATCH)
        self._poll_while(lambda: self._busy(opening, answers_at_once))
        return len(self._open)

    @staticmethod
    def _busy(followers, answers_at_once):
        return sum(1 for each in followers if each.request or (answers_at_once and not each.status))

    def _connect(self, address, at, topic, path):
        connection = socket.socket()
        # Choose the port at connect, when the peer is known, so that one port can serve many connections.
        connection.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        connection.bind((f"127.0.0.{2 + at % load.SOURCES}", 0))
        connection.setblocking(False)
        connection.connect_ex(address)
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n".encode()
        follower = self._open[connection.fileno()] = Follower(topic, request, connection)
        self._epoll.register(connection.fileno(), select.EPOLLOUT)
        return follower

    def begin(self):
        """Forget what was counted so far."""
        self._tally = Tally()
        self._received.value = 0

    def wait_for(self, newest, timeout_s):
        """Until each follower has message `newest[topic]`, if its topic is in there. Returns, by topic, how many have
        not."""
        deadline = time.perf_counter() + timeout_s
        missing = [each for each in self._open.values() if each.topic in newest]
        while missing and time.perf_counter() < deadline:
            self._poll(0.05)
            missing = [each for each in missing if (each.last or 0) < newest[each.topic]]
        return Counter(each.topic for each in missing)

    def report(self, newest):
        """What was counted since `begin`; `cut`, since `open`. A message that has not come yet is lost."""
        behind = sum(max(0, newest.get(each.topic, 0) - (each.last or 0)) for each in self._open.values())
        tally, late = self._tally, sorted(self._tally.late_ns)
        return {
            "delivered": len(late),
            "lost": tally.lost + behind,
            "repeated": tally.repeated,
            "cut": self._cut,
            "median_ms": late[len(late) // 2] / 1e6 if late else float("nan"),
            "p99_ms": late[min(len(late) - 1, len(late) * 99 // 100)] / 1e6 if late else float("nan"),
            "newest_at": tally.newest_at_ns / 1e9,
        }

    def close(self):
        """Close all connections. Returns None."""
        for follower in self._open.values():
            # The kernel would otherwise keep the port for a minute.
            follower.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            follower.socket.close()
        self._open.clear()
        self._cut = 0

    def _poll_while(self, condition):
        deadline = time.perf_counter() + 120
        while condition():
            if time.perf_counter() > deadline:
                raise TimeoutError(f"the server did not take {len(self._open)} followers")
            self._poll(0.05)

    def _poll(self, timeout_s):
        before = len(self._tally.late_ns)
        for fileno, _ in self._epoll.poll(timeout_s):
            if follower := self._open.get(fileno):
                try:
                    self._serve(follower, fileno)
                except ConnectionError:
                    self._drop(follower, fileno)
        self._received.value += len(self._tally.late_ns) - before

    def _serve(self, follower, fileno):
        if follower.request:
            follower.socket.sendall(follower.request)
            follower.request = b""
            self._epoll.modify(fileno, select.EPOLLIN)
        elif data := follower.socket.recv(READ_BYTES):
            self._tally.take(follower, data, time.perf_counter_ns())
        else:
            self._drop(follower, fileno)

    def _drop(self, follower, fileno):
        self._cut += 1
        self._epoll.unregister(fileno)
        del self._open[fileno]
        follower.socket.close()


def _run(pipe, received):
    load.allow_files(20_000)
    Followers(pipe, received).run()


class FollowersProcess:
    """The benchmark's side of such a process. `received` counts the messages since `begin`."""

    def __init__(self):
        self._pipe, theirs = multiprocessing.Pipe()
        self._received = multiprocessing.Value("q", 0, lock=False)
        self._process = multiprocessing.Process(target=_run, args=(theirs, self._received), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def received(self):
        return self._received.value

    def call(self, name, *arguments):
        self._pipe.send((name, *arguments))
        return self._pipe.recv()

    def stop(self):
        """May be called twice."""
        self._process.kill()
        self._process.join(30)
