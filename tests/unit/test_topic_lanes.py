"""Streams of topics that wait share a lane: what they are sent, and how they leave it."""

import socket
import time
from contextlib import ExitStack, suppress

import gevent
import pytest

from everstream.apis.topics.encoder import TopicEventEncoder
from everstream.log.topic_records import LiveMessages, Start, Subscription, TopicPage
from everstream.settings import Settings
from everstream.web.direct_writer import DirectWriter, http_chunk
from everstream.web.open_streams import OpenStreams, StreamClient
from everstream.web.sse import HEARTBEAT
from everstream.web.stream_wheel import StreamWheel
from everstream.web.topic_group import Batch, Group, LastReceived
from everstream.web.topic_reader import TopicReader
from harness.sse_client import Decoder

SUBSCRIPTION = Subscription("owner", ("a",))
READ_TO, RECEIVED = 10, 20
BOUND_BYTES = 100_000


class Stream:
    """A stream whose greenlet waits, and the other end of its connection."""

    def __init__(self, group):
        self.client, connection = socket.socketpair()
        self.connection = connection
        connection.setblocking(False)
        writer = DirectWriter(connection)
        client = StreamClient(writer=writer, can_return=True)
        self.reader = TopicReader(SUBSCRIPTION, Start("after", READ_TO), TopicEventEncoder({}), BOUND_BYTES, client)
        self.reader.group = group
        group.individual[self.reader] = None
        cursor = self.reader.cursor
        cursor.begin_read()
        cursor.end_read(TopicPage([], READ_TO, "", more=False, is_closed=False))
        cursor.take()
        # The first wait returns at once: a new stream has work to look for.
        self.reader.wait()
        self.greenlet = gevent.spawn(self.reader.wait)

    def received(self):
        """The data of the messages that came, without the chunks' lines."""
        self.client.setblocking(False)
        try:
            raw = self.client.recv(1 << 20)
        except BlockingIOError:
            return []
        lines = [line for line in raw.split(b"\n") if not line.endswith(b"\r")]
        return [event.data for event in Decoder().feed(b"\n".join(lines))]

    def close(self):
        self.greenlet.kill()
        self.client.close()
        self.connection.close()


@pytest.fixture
def group():
    received = LastReceived()
    received.position = RECEIVED
    return Group(SUBSCRIPTION, received)


@pytest.fixture
def streams(group):
    with ExitStack() as stack:
        made = [Stream(group) for _ in range(3)]
        for each in made:
            stack.callback(each.close)
        gevent.sleep(0)
        (lane,) = group.lanes.values()
        assert list(lane.writes) == [each.reader for each in made] and not group.individual
        yield made


@pytest.fixture
def open_streams(streams):
    made = OpenStreams(Settings())
    for each in streams:
        made.begin(each.reader)
    return made


@pytest.fixture
def clock(monkeypatch, streams):
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    return found


class Clock:
    def __init__(self):
        self.now = time.monotonic()

    def pass_s(self, seconds):
        self.now += seconds


def send(group, position, *entries):
    batch = Batch()
    batch.add(LiveMessages(1, "owner:a", position, list(entries)))
    batch.send(group)


def finish(streams):
    gevent.joinall([each.greenlet for each in streams], timeout=10, raise_error=True)
    assert all(each.greenlet.dead for each in streams)


def test_message_reaches_all(group, streams):
    send(group, 21, b'["",1]', b'["",2]')
    assert [each.received() for each in streams] == [["1", "2"]] * 3
    assert not group.individual
    streams[0].reader.wake()
    finish(streams[:1])
    assert streams[0].reader.cursor.position == 22 and list(group.individual) == [streams[0].reader]


def test_draining_ends_all(open_streams, streams):
    open_streams.drain()
    finish(streams)
    assert all(each.reader.is_drained for each in streams)


def test_silent_streams_get_heartbeats_in_their_lane(group, streams, clock):
    """The greenlet of one whose connection the server has to write to is woken instead."""
    wheel = StreamWheel(silence_s=10, tick_s=1)
    for each in streams:
        wheel.add(each.reader)
    streams[2].reader.leave_lane()
    streams[2].reader.writer = None
    clock.pass_s(11)
    wheel.send_due()
    assert [each.client.recv(1 << 10) for each in streams[:2]] == [http_chunk(HEARTBEAT)] * 2
    assert list(group.lanes["topics/00"].writes) == [each.reader for each in streams[:2]]
    finish(streams[2:])
    assert not any(each.reader.first_sent_at for each in streams)


def test_message_postpones_the_heartbeats_of_its_lane(group, streams, clock):
    wheel = StreamWheel(silence_s=10, tick_s=1)
    for each in streams:
        wheel.add(each.reader)
    clock.pass_s(8)
    send(group, 21, b'["",1]')
    clock.pass_s(8)
    wheel.send_due()
    assert [each.received() for each in streams] == [["1"]] * 3
    clock.pass_s(3)
    wheel.send_due()
    assert [each.client.recv(1 << 10) for each in streams] == [http_chunk(HEARTBEAT)] * 3
    # What a lane has sent is forgotten, but not when: that of a heartbeat was later.
    streams[0].reader.wake()
    assert streams[0].reader.sent_at == clock.now


def test_revoked_key_ends_all_its_streams(open_streams, streams):
    for each in streams:
        each.reader.credential = "key"
    open_streams._end_revoked(lambda _: False)
    finish(streams)
    assert all(each.reader.error for each in streams)


def test_client_that_left(group, streams):
    streams[1].client.close()
    send(group, 21, b'["",1]')
    finish(streams[1:2])
    assert streams[1].reader.left
    assert [each.received() for each in (streams[0], streams[2])] == [["1"]] * 2


def fill(connection):
    """Until the kernel takes no more. Returns how many bytes it took."""
    filling = 0
    with suppress(BlockingIOError):
        while True:
            filling += connection.send(b"x" * 4096)
    return filling


def test_rest_that_the_kernel_did_not_take(group, streams):
    slow = streams[1]
    fill(slow.connection)
    send(group, 21, b'["",1]')
    assert slow.reader.writer.has_unsent and not slow.reader.is_waiting
    assert slow.reader.cursor.position == 21
    send(group, 22, b'["",2]')
    assert slow.reader.cursor.take().messages[0].position == 22
    assert [each.received() for each in (streams[0], streams[2])] == [["1", "2"]] * 2


def test_stream_that_is_killed_leaves(group, streams):
    streams[1].greenlet.kill()
    assert list(group.individual) == [streams[1].reader]
    send(group, 21, b'["",1]')
    assert streams[1].received() == []


def test_what_may_still_come_through_the_channel_keeps_a_stream_out(group):
    group._received.position = READ_TO - 1
    late = Stream(group)
    gevent.sleep(0)
    assert list(group.individual) == [late.reader]
    send(group, READ_TO - 1, b'["",0]', b'["",1]')
    assert late.received() == []
    late.close()


def test_heartbeat_that_the_kernel_did_not_take(group, streams):
    """It comes before what follows it."""
    slow, beat = streams[1], http_chunk(HEARTBEAT)
    filling = fill(slow.connection)
    slow.reader.beat()
    send(group, 21, b'["",1]')
    assert slow.reader.cursor.take().messages[0].position == 21
    assert len(slow.client.recv(filling, socket.MSG_WAITALL)) == filling
    finish([slow])
    assert slow.client.recv(1 << 10) == beat


def test_large_message_goes_through_the_greenlets(group, streams):
    send(group, 21, b'["","%b"]' % (b"x" * (20 << 10)))
    finish(streams)
    assert [each.received() for each in streams] == [[]] * 3
    assert all(each.reader.cursor.take().position == 21 for each in streams)


def test_topic_that_ended_is_looked_up_in_the_log(group, streams):
    send(group, 21)
    finish(streams)
    assert all(each.reader.cursor.behind for each in streams)
