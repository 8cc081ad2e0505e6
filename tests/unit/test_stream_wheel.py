"""When streams are looked at for heartbeats."""

import time

import pytest

from everstream.web.open_streams import OpenStream, StreamClient
from everstream.web.stream_wheel import StreamWheel


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
def wheel(clock):
    return StreamWheel(silence_s=10, tick_s=1)


def run(wheel, clock, seconds, stream=None, sends_every_s=0):
    for n in range(1, seconds + 1):
        clock[0] += 1
        if stream and sends_every_s and n % sends_every_s == 0:
            stream.mark_sent()
        wheel.send_due()


def test_silent_stream_gets_one_per_interval(wheel, clock):
    stream = Stream()
    wheel.add(stream)
    run(wheel, clock, 9)
    assert (stream.beats, stream.looks) == (0, 0)
    run(wheel, clock, 51)
    assert (stream.beats, stream.looks) == (6, 6)


def test_busy_stream_gets_none_and_few_looks(wheel, clock):
    stream = Stream()
    wheel.add(stream)
    run(wheel, clock, 100, stream, sends_every_s=3)
    assert stream.beats == 0 and stream.looks <= 15


def test_stream_that_does_not_wait_gets_none(wheel, clock):
    stream = Stream()
    stream.waits = False
    wheel.add(stream)
    run(wheel, clock, 30)
    assert stream.beats == 0
    stream.waits = True
    run(wheel, clock, 10)
    assert stream.beats == 1


def test_ended_stream_is_forgotten(wheel, clock):
    stream = Stream()
    wheel.add(stream)
    run(wheel, clock, 25)
    wheel.discard(stream)
    seen = stream.looks
    run(wheel, clock, 25)
    assert stream.looks == seen and not any(wheel._due.values())


def test_late_ticks_miss_no_stream(wheel, clock):
    streams = [Stream() for _ in range(20)]
    for stream in streams:
        wheel.add(stream)
        clock[0] += 1.3
    clock[0] += 10
    wheel.send_due()
    assert [stream.beats for stream in streams] == [1] * 20


def test_fault_of_one_stream_costs_the_others_nothing(wheel, clock):
    streams = [Stream() for _ in range(20)]
    for stream in streams:
        wheel.add(stream)
    streams[7].beat = lambda: 1 / 0
    clock[0] += 11
    with pytest.raises(ZeroDivisionError):
        wheel.send_due()
    wheel.send_due()
    assert [stream.beats for stream in streams] == [int(at != 7) for at in range(20)]
    assert len(wheel) == 20 and set(wheel) == set(streams)
