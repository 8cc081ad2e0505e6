"""The followers of `bench.topics` must notice what a server loses or repeats."""

import json

import pytest

from bench.topic_followers import Follower, Refused, Tally, message

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(n):
    return b"id: %d\ndata: %b\n\n" % (n, message(n).encode())


def chunk(*numbers):
    body = b"".join(map(event, numbers))
    return b"%x\r\n%b\r\n" % (len(body), body)


def tally_of(*reads):
    tally, follower = Tally(), Follower("topic", b"", None)
    for data in reads:
        tally.take(follower, data, 1 << 62)
    return tally, follower


@pytest.mark.parametrize(
    ("numbers", "lost", "repeated"),
    [([1, 2, 3], 0, 0), ([5, 6], 0, 0), ([1, 4], 2, 0), ([1, 2, 2, 3], 0, 1), ([1, 3, 2], 1, 1)],
)
def test_lost_and_repeated_messages_are_counted(numbers, lost, repeated):
    tally, follower = tally_of(HEAD, *map(chunk, numbers))
    assert (tally.lost, tally.repeated, follower.last) == (lost, repeated, max(numbers))
    assert len(tally.late_ns) == len(numbers) - repeated


@pytest.mark.parametrize("size", [1, 7, 50])
def test_messages_may_be_cut_anywhere(size):
    data = HEAD + chunk(1, 2) + b"c\r\n: heartbeat\n\r\n" + chunk(3)
    tally, follower = tally_of(*(data[at : at + size] for at in range(0, len(data), size)))
    assert (tally.lost, tally.repeated, follower.last, len(tally.late_ns)) == (0, 0, 3, 3)


def test_an_error_is_no_stream():
    with pytest.raises(Refused):
        tally_of(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n{}")


def test_a_message_says_when_it_was_published():
    first, second = (json.loads(message(n)) for n in (1, 2))
    assert second["n"] == 2
    assert first["at"] < second["at"]
