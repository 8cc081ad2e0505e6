"""The Python client's decoder keeps to the standard, however the bytes arrive, and to its bound."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.client.errors import InvalidStream
from everstream.client.sse import BOM, MAX_RETRY_MS, Decoder

LONG = b"x" * 2048

# What the framing tests of Web Platform Tests (eventsource/format-*.any.js) send, and what they expect.
FRAMING = {
    "bom": (b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", [("message", "1"), ("message", "3")]),
    "bom-2": (b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n", [("message", "2"), ("message", "3")]),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        [("message", "1\n2\n3\n4")],
    ),
    "data-before-final-empty-line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [("message", "test1")]),
    "field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [("message", ""), ("message", "\n"), ("message", "test")]),
    "field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [("test", "x"), ("message", "x")]),
    "field-event-empty": (b"event: \ndata:data\n\n", [("message", "data")]),
    "field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\n"
        b"da-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [("message", "\0\n 2\n1\n3\n\n4")],
    ),
    "field-retry-empty": (b"retry\ndata:test\n\n", [("message", "test")]),
    "field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [("message", "test\n\ntest")],
    ),
    "leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [("message", "\ttest\n\ntest")]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [("message", "test\n\ntest")]),
    "null-character": (b"data:\0\n\n\n\n", [("message", "\0")]),
    "utf-8": ("data:ok…\n\n".encode(), [("message", "ok…")]),
}


def decode(wire, size=None, decoder=None):
    decoder = decoder or Decoder(1 << 20)
    size = size or max(len(wire), 1)
    return [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("name", FRAMING)
def test_framing(name, size):
    wire, expected = FRAMING[name]
    assert [(event.type, event.data) for event in decode(wire, size)] == expected


@pytest.mark.parametrize(
    ("wire", "ids"),
    [
        (b"id:1\ndata:x\n\ndata:x\n\n", [("1", "1"), ("1", None)]),
        (b"id:1\ndata:x\n\nid\ndata:x\n\n", [("1", "1"), ("", "")]),
        (b"id:1\ndata:x\n\nid:2\0\ndata:x\n\n", [("1", "1"), ("1", None)]),
        (b"id: 1\nid:2\ndata:x\n\n", [("2", "2")]),
        (b"id:1\n\ndata:x\n\n", [("1", None)]),
        ("id:…\ndata:x\n\n".encode(), [("…", "…")]),
    ],
)
def test_ids(wire, ids):
    assert [(event.last_id, event.id) for event in decode(wire)] == ids


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3000", 3000),
        ("007", 7),
        ("0", 0),
        ("1000x", None),
        ("+5", None),
        ("-5", None),
        (" 5", None),
        ("1_000", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        ("9" * 5000, MAX_RETRY_MS),
    ],
)
def test_retry_takes_ascii_digits(value, expected):
    decoder = Decoder(1 << 20)
    # One space after the colon is not part of the value.
    decode(f"retry: {value}\n".encode(), decoder=decoder)
    assert decoder.retry_ms == expected


def test_a_line_that_ends_in_cr_does_not_wait_for_more():
    assert [event.data for event in decode(b"data:x\r\r")] == ["x"]


def test_line_end_that_is_split_around_an_empty_chunk():
    decoder = Decoder(1 << 20)
    chunks = [b"data:x\r", b"", b"\ndata:y\r", b"\n\r", b"\n"]
    assert [event.data for chunk in chunks for event in decoder.feed(chunk)] == ["x\ny"]


def test_only_three_line_ends():
    separators = "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e"
    assert [event.data for event in decode(f"data:{separators}\n\n".encode())] == [separators]


def test_broken_utf_8_is_replaced():
    assert [event.data for event in decode(b"data:a\xff\xf0\x9f\n\ndata:b\n\n", 1)] == ["a��", "b"]


@pytest.mark.parametrize(
    "endless",
    [b"x" * 1000, b":" + b"x" * 1000, b"data:xxxxxxxxx\n", b"data\n", b"event:x\n", b"id:xxx\n", b"\xff" * 100],
)
def test_an_event_that_never_ends_is_refused(endless):
    decoder = Decoder(10_000)
    with pytest.raises(InvalidStream, match="10000 bytes") as raised:
        for _ in range(10_001):
            list(decoder.feed(endless))
    assert raised.value.code == "event_too_large"


def test_the_bound_is_on_one_event():
    decoder = Decoder(100)
    wire = (b":" + b"c" * 90 + b"\nignored: x\nretry: 1\ndata:" + b"x" * 90 + b"\n\n") * 50
    assert len(decode(wire, 64, decoder)) == 50


PARTS = [
    b"data",
    b"event",
    b"id",
    b"retry",
    b":",
    b" ",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"7",
    BOM,
    "é\u2028".encode(),
    b"\xe2",
]


def standard(wire):
    """The standard's algorithm, for a stream that is whole."""
    text = wire.removeprefix(BOM).decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    events, data, kind, last_id = [], "", "", ""
    for line in text.split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append((kind or "message", data[:-1], last_id))
            data, kind = "", ""
        elif name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@given(st.lists(st.sampled_from(PARTS), max_size=60).map(b"".join), st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_in_any_chunks(wire, cuts):
    decoder = Decoder(1 << 20)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    events = [event for start, end in itertools.pairwise(edges) for event in list(decoder.feed(wire[start:end]))]
    assert [(event.type, event.data, event.last_id) for event in events] == standard(wire)
