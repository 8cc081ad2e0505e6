"""A server with its followers and its publisher, for `bench.topics`."""

import itertools
import sys
import time
from contextlib import contextmanager
from http.client import HTTPConnection

from bench import cpu
from bench.topic_followers import WINDOW, FollowersProcess, message
from harness.stack import tries

SETTLE_S = 20
"""How long the last message may take to arrive."""
WARM_UP_S = 60
AT_ONCE = 500
"""Below the backlog of a listening socket."""
ALONE = "bench/alone"
"""A topic without followers."""


class Meter:
    """A server's CPU time in its turns, and between them, when it only holds its followers."""

    def __init__(self, server):
        self._server = server
        self.restart()

    def restart(self):
        self._rested_cpu_s = self._rested_s = 0.0
        self._since = self._now()

    def _now(self):
        return sum(cpu.cpu_s(self._server.pids).values()), time.perf_counter()

    @property
    def resting(self):
        """CPU seconds per second between turns."""
        return self._rested_cpu_s / max(1.0, self._rested_s)

    def used_since(self):
        """The CPU seconds since the last turn, or `restart`."""
        return self._now()[0] - self._since[0]

    @contextmanager
    def turn(self):
        """Yields a dictionary that gets the CPU seconds and the seconds that the turn took."""
        before = self._now()
        self._rested_cpu_s += before[0] - self._since[0]
        self._rested_s += before[1] - self._since[1]
        used = {}
        yield used
        self._since = self._now()
        used["cpu_s"], used["s"] = (after - at for after, at in zip(self._since, before, strict=True))


class Contestant:
    def __init__(self, server):
        self.server, self.meter, self._followers = server, Meter(server), FollowersProcess()
        self._newest = {}
        self._opened = 0

    def open(self, topics, each):
        """Give each topic that many followers, and wait until all get messages. Returns the seconds it took."""
        self.server.make([*topics, ALONE])
        paths = [(topic, self.server.path(topic)) for topic in topics for _ in range(each)]
        started = time.perf_counter()
        # Where the answer does not show that a connection was accepted, too many at once would time out.
        size = len(paths) if self.server.answers_at_once else AT_ONCE
        for at in range(0, len(paths), size):
            self._open(paths[at : at + size])
        if self._opened != len(paths):
            raise TimeoutError(f"of {len(paths)} followers, {self._opened} stayed")
        self.meter.restart()
        return time.perf_counter() - started

    def _open(self, paths):
        address = ("127.0.0.1", self.server.port)
        self._opened = self._followers.call("open", address, paths, self.server.answers_at_once)
        # A server may have sent the head of its answer before it subscribed.
        missing, deadline = {topic: 1 for topic, _ in paths}, time.perf_counter() + WARM_UP_S
        while missing:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{sum(missing.values())} followers got nothing")
            self._publish(list(missing), len(missing))
            missing = self._followers.call("wait_for", dict.fromkeys(missing, 1), 2)

    def close(self):
        self._followers.call("close")
        self._newest.clear()
        # A server may have work with each one that leaves.
        for _ in tries(SETTLE_S, f"{self.server.name} to rest"):
            self.meter.restart()
            time.sleep(0.5)
            if self.meter.used_since() < 0.02:
                break

    def turn(self, topics, rate, seconds):
        """Publish at a fixed rate, to the topics in turn. Returns what the followers got."""
        self._followers.call("begin")
        with self.meter.turn() as used:
            self._publish(topics, int(rate * seconds), every_s=1 / rate)
            self._followers.call("wait_for", self._newest, SETTLE_S)
        return self._followers.call("report", self._newest) | used

    def turn_together(self, topics, rate, seconds, together):
        """The same with several messages per POST. None: the server has no such thing."""
        if not self.server.several_to:
            return None
        self._followers.call("begin")
        with self.meter.turn() as used:
            self._publish_together(topics, int(rate * seconds / together), together / rate, together)
            self._followers.call("wait_for", self._newest, SETTLE_S)
        return self._followers.call("report", self._newest) | used

    def turn_alone(self, rate, seconds):
        """Publish at a fixed rate, to a topic that nobody follows."""
        count = int(rate * seconds)
        with self.meter.turn() as used:
            self._publish([ALONE], count, every_s=1 / rate)
        del self._newest[ALONE]
        return used | {"published": count}

    def saturate(self, topic, seconds):
        """Publish as fast as the followers receive, but for a few messages that are on their way."""
        self._followers.call("begin")
        started = time.perf_counter()

        def may_go_on(published):
            while self._followers.received < (published - WINDOW) * self._opened:
                if time.perf_counter() > started + SETTLE_S:
                    return False
                time.sleep(0.0005)
            return time.perf_counter() < started + seconds

        with self.meter.turn() as used:
            self._publish([topic], sys.maxsize, may_go_on=may_go_on)
            self._followers.call("wait_for", self._newest, SETTLE_S)
        found = self._followers.call("report", self._newest)
        return found | used | {"events_per_s": found["delivered"] / (found["newest_at"] - started)}

    def _publish(self, topics, count, every_s=0.0, may_go_on=None):
        """Publish messages to the topics in turn, each acknowledged before the next. `may_go_on` is given the number
        published so far."""
        connection, started = self._connect(), time.perf_counter()
        for at in range(count):
            if may_go_on and not may_go_on(at):
                break
            time.sleep(max(0.0, started + at * every_s - time.perf_counter()))
            topic = topics[at % len(topics)]
            self._post(connection, self.server.publish_to(topic), self.server.body(self._message(topic)))
        connection.close()

    def _publish_together(self, topics, count, every_s, together):
        connection, started, turns = self._connect(), time.perf_counter(), itertools.cycle(topics)
        for at in range(count):
            time.sleep(max(0.0, started + at * every_s - time.perf_counter()))
            messages = [(topic, self._message(topic)) for topic in itertools.islice(turns, together)]
            self._post(connection, self.server.several_to, self.server.several(messages))
        connection.close()

    def _connect(self):
        return HTTPConnection("127.0.0.1", self.server.port, timeout=SETTLE_S)

    def _message(self, topic):
        """The topic's next."""
        n = self._newest[topic] = self._newest.get(topic, 0) + 1
        return message(n)

    def _post(self, connection, path, body):
        connection.request("POST", path, body, {"Content-Type": self.server.content_type})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise OSError(f"publishing was answered {answer.status} {text[:200]!r}")

    def stop(self):
        """May be called twice."""
        self._followers.stop()
        self.server.stop()
