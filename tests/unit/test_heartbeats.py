"""When streams are looked at for heartbeats."""

import time

import pytest

from everstream.web.heartbeats import Heartbeats
from everstream.web.open_streams import OpenStream, StreamClient


class Stream(OpenStream):
    """Counts its heartbeats in place of sending them."""

    def __init__(self):
        super().__init__(StreamClient())
        self.beats = self.looks = 0
        self.waits = True

    @property
    def is_waiting(self):
        return self.waits

    @property
    def sent_at(self):
        self.looks += 1
        return self.last_sent_at

    def beat(self):
        self.beats += 1
        self.mark_sent()


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def heartbeats(clock):
    return Heartbeats(silence_s=10, tick_s=1)


def run(heartbeats, clock, seconds, stream=None, sends_every_s=0):
    for n in range(1, seconds + 1):
        clock[0] += 1
        if stream and sends_every_s and n % sends_every_s == 0:
            stream.mark_sent()
        heartbeats.send_due()


def test_silent_stream_gets_one_per_interval(heartbeats, clock):
    stream = Stream()
    heartbeats.add(stream)
    run(heartbeats, clock, 9)
    assert (stream.beats, stream.looks) == (0, 0)
    run(heartbeats, clock, 51)
    assert (stream.beats, stream.looks) == (6, 6)


def test_busy_stream_gets_none_and_few_looks(heartbeats, clock):
    stream = Stream()
    heartbeats.add(stream)
    run(heartbeats, clock, 100, stream, sends_every_s=3)
    assert stream.beats == 0 and stream.looks <= 15


def test_stream_that_does_not_wait_gets_none(heartbeats, clock):
    stream = Stream()
    stream.waits = False
    heartbeats.add(stream)
    run(heartbeats, clock, 30)
    assert stream.beats == 0
    stream.waits = True
    run(heartbeats, clock, 10)
    assert stream.beats == 1


def test_ended_stream_is_forgotten(heartbeats, clock):
    stream = Stream()
    heartbeats.add(stream)
    run(heartbeats, clock, 25)
    heartbeats.discard(stream)
    seen = stream.looks
    run(heartbeats, clock, 25)
    assert stream.looks == seen and not any(heartbeats._due.values())


def test_late_ticks_miss_no_stream(heartbeats, clock):
    streams = [Stream() for _ in range(20)]
    for stream in streams:
        heartbeats.add(stream)
        clock[0] += 1.3
    clock[0] += 10
    heartbeats.send_due()
    assert [stream.beats for stream in streams] == [1] * 20
