"""The encoder against the standard's own rules for reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream import log, sse
from everstream.errors import InvalidInput
from tests.sse_client import Decoder

GENERATION = "0123456789abcdef" * 2


@given(st.lists(st.text(), min_size=1), st.integers(1, 50))
def test_any_text_survives_any_chunking(texts, size):
    entries = [log.Entry(n, "", log.encode_json({"text": text})) for n, text in enumerate(texts, 1)]
    wire = b"".join(sse.entry_event(GENERATION, entry) for entry in entries)
    decoder = Decoder()
    events = [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]
    assert [event.json["text"] for event in events] == texts
    assert [event.id for event in events] == [f"{GENERATION}.{n}" for n in range(1, len(texts) + 1)]


@given(st.text(), st.text(), st.text())
def test_an_entry_survives_the_log_and_the_channel(text, event, resume):
    encoded = log.encode_entry(event, {"text": text})
    assert b"\n" not in encoded
    from_log = log.decode_entry(7, encoded, resume.encode())
    ((_, (from_channel,)),) = log.decode_live(f'[["{GENERATION}",7,[{encoded.decode()}]]]'.encode())
    assert (from_log.n, from_log.event, from_log.data) == (7, event, from_channel.data)
    assert from_log.resume == resume.encode()


def test_an_entry_is_encoded_once_however_many_read_it():
    entry = log.Entry(1, "", b"{}")
    assert sse.entry_event(GENERATION, entry) is sse.entry_event(GENERATION, entry)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (f"{GENERATION}.0", (GENERATION, 0)),
        (f"{GENERATION}.31", (GENERATION, 31)),
        (f"{GENERATION}.expired", (GENERATION, None)),
    ],
)
def test_event_ids(text, parsed):
    assert sse.parse_event_id(text, "Last-Event-ID") == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        GENERATION,
        f"{GENERATION}.",
        f"{GENERATION}.-1",
        f"{GENERATION}.01",
        f"{GENERATION}.1 ",
        f"{GENERATION}.1\n",
        f"{GENERATION}.\u0661",
        f"{GENERATION}.12345678901",
        f"{GENERATION.upper()}.1",
        f"{GENERATION}0.1",
        f"{GENERATION}.1\r\nX: y",
    ],
)
def test_malformed_event_ids(text):
    with pytest.raises(InvalidInput) as raised:
        sse.parse_event_id(text, "Last-Event-ID")
    assert raised.value.param == "Last-Event-ID"
