"""The encoder against the standard's own rules for reading."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream import log, openai, sse
from everstream.errors import InvalidInput
from everstream.follower import MAX_CHUNK_BYTES, Live
from tests.sse_client import Decoder

GENERATION = "0123456789abcdef" * 2
_KNOWN = log.Generation(GENERATION, "open", "model", 0, 1_700_000_000)
ENCODERS = [
    sse.Events(GENERATION),
    openai.Chunks(_KNOWN, is_chat=True, include_usage=True),
    openai.Chunks(_KNOWN, is_chat=False, include_usage=False),
]


@given(st.lists(st.text(), min_size=1), st.integers(1, 50))
def test_any_text_survives_any_chunking(texts, size):
    entries = [log.Entry(n, "", log.encode_json({"text": text})) for n, text in enumerate(texts, 1)]
    encoder = sse.Events(GENERATION)
    wire = b"".join(encoder.entry(entry) for entry in entries)
    decoder = Decoder()
    events = [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]
    assert [event.json["text"] for event in events] == texts
    assert [event.id for event in events] == [f"{GENERATION}.{n}" for n in range(1, len(texts) + 1)]


@given(st.text(), st.text(), st.text())
def test_an_entry_survives_the_log_and_the_channel(text, event, resume):
    encoded = log.encode_entry(event, {"text": text})
    assert b"\n" not in encoded
    from_log = log.decode_entry(7, encoded, resume.encode())
    ((generation, first, entries),) = log.decode_live(f'[["{GENERATION}",7,[{encoded.decode()}]]]'.encode())
    live = Live(first, log.split_entries(entries))
    (from_channel,) = live.entries
    assert (generation, live.first, live.last) == (GENERATION, 7, 7)
    assert (from_log.n, from_log.event, from_log.data) == (from_channel.n, from_channel.event, from_channel.data)
    assert from_log.resume == resume.encode()


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.format)
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_what_goes_straight_is_what_goes_through_a_greenlet(encoder, texts):
    live = Live(7, [log.encode_entry("", {"text": text}) for text in texts])
    size, _, body = live.chunk(encoder).partition(b"\r\n")
    assert body == b"".join(encoder.entry(entry) for entry in live.entries) + b"\r\n"
    assert int(size, 16) == len(body) - 2


@pytest.mark.parametrize("chunks", ENCODERS[1:], ids=lambda encoder: encoder.format)
def test_each_way_that_an_answer_goes_on_or_ends_in_openais_format(chunks):
    def told(event, **data):
        return Decoder().feed(chunks.entry(log.Entry(7, event, log.encode_json(data))))

    assert chunks.entry(log.Entry(7, "resumed", b'{"attempt":2}')) == b": resumed\n"
    for event, data, reason in (
        ("done", {"finish_reason": "length", "usage": None}, "length"),
        ("cancelled", {"reason": "abandoned"}, "abort"),
    ):
        first, *_, last = told(event, **data)
        assert first.json["choices"][0]["finish_reason"] == reason
        assert (last.id, last.data) == (f"{GENERATION}.7", "[DONE]")
    error, last = told("failed", code="model_error", message="it raised")
    assert error.json["error"]["code"] == "model_error"
    assert last.data == "[DONE]"


@pytest.mark.parametrize("output", [{"n": 7}, {"text": 7}, {"text": None}])
def test_an_output_without_text_is_told_as_json(output):
    (event,) = Decoder().feed(ENCODERS[2].entry(log.Entry(7, "", log.encode_json(output))))
    assert json.loads(event.json["choices"][0]["text"]) == output


@pytest.mark.parametrize("last", [log.encode_entry("done", {}), log.encode_entry("resumed", {"attempt": 2})])
def test_only_tokens_go_straight(last):
    assert Live(1, [log.encode_entry("", {"text": "a"}), last]).chunk(sse.Events(GENERATION)) == b""


def test_a_large_entry_goes_through_the_greenlet_which_sends_it_in_pieces():
    assert Live(1, [log.encode_entry("", {"text": "a" * (MAX_CHUNK_BYTES + 1)})]).chunk(sse.Events(GENERATION)) == b""


def test_a_format_is_made_once_however_many_read_it():
    live = Live(1, [log.encode_entry("", {"text": "a"})])
    assert live.chunk(sse.Events(GENERATION)) is live.chunk(sse.Events(GENERATION))
    assert live.chunk(sse.Events(GENERATION)) != live.chunk(ENCODERS[1])


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
