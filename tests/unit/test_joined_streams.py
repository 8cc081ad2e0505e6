"""Events of several streams, interleaved: each whole, and none keeps the others from theirs."""

import gevent
import pytest

from everstream.log.entries import TOKEN, Entry, encode_entry
from everstream.web.event_encoder import EventEncoder
from everstream.web.joined_streams import joined
from everstream.web.streaming import PIECE_BYTES, Unfinished, pieces
from harness.sse_client import Decoder

LONG, SHORT = EventEncoder("a" * 32), EventEncoder("b" * 32)
TIMEOUT_S = 30


def token(n, size, encoder):
    """An entry whose event has this size."""
    bare = len(encoder.entry(Entry(n, TOKEN, b'{"text":""}')))
    return Entry(n, TOKEN, b'{"text":"%b"}' % (b"x" * (size - bare)))


def part(encoder, entries):
    """One after another: each is a batch of its own, as live entries are."""
    for entry in entries:
        yield from pieces([encoder.entry(entry)])


def read(*parts):
    with gevent.Timeout(TIMEOUT_S):
        return Decoder().feed(b"".join(joined(parts)))


def ids(events, encoder):
    return [event.id for event in events if event.id.startswith(encoder.generation)]


@pytest.mark.parametrize("size", [*range(PIECE_BYTES - 2, PIECE_BYTES + 3), 2 * PIECE_BYTES, 2 * PIECE_BYTES + 1])
@pytest.mark.parametrize("follows", [0, 1])
def test_events_of_any_size(size, follows):
    long = [token(1, size, LONG), *(token(n, 200, LONG) for n in range(2, 2 + follows))]
    short = [token(n, 200, SHORT) for n in range(1, 4)]
    events = read(part(LONG, long), part(SHORT, short))
    assert ids(events, LONG) == [f"{LONG.generation}.{each.n}" for each in long]
    assert ids(events, SHORT) == [f"{SHORT.generation}.{each.n}" for each in short]
    assert max(len(event.data) for event in events) == len(long[0].data)


def test_part_that_fails_leaves_the_others_their_turn(caplog):
    def failing():
        yield Unfinished(b"data: {")
        raise ValueError("told to")

    ends = [Entry(1, "done", encode_entry("done", {"finish_reason": "stop"}))]
    with gevent.Timeout(TIMEOUT_S):
        whole = b"".join(joined([failing(), pieces(map(SHORT.entry, ends))]))
    assert b"event: done" in whole
    assert "told to" in caplog.text


def test_client_that_leaves_in_the_middle_of_an_event():
    closed = []

    def part(name):
        try:
            yield Unfinished(b"data: {")
            yield b"}\n\n"
        finally:
            closed.append(name)

    stream = joined([part("a"), part("b")])
    with gevent.Timeout(TIMEOUT_S):
        next(stream)
        # Both have begun once the second waits for its turn.
        gevent.wait(timeout=0)
        stream.close()
    assert closed == ["a", "b"]


def test_part_that_fails_while_it_is_ended_holds_nobody(caplog):
    def stubborn():
        try:
            while True:
                yield b": more\n\n"
                gevent.sleep(0)
        finally:
            raise ValueError("told to")

    with gevent.Timeout(TIMEOUT_S):
        frames = joined([stubborn(), stubborn()])
        next(frames)
        frames.close()
    assert "told to" in caplog.text
