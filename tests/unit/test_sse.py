"""The SSE encoders, read back by the standard's own rules."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.apis.durable_streams.generations import GenerationEncoder
from everstream.apis.inferless.encoders import GenerateEncoder, InferEncoder
from everstream.apis.native.text_encoder import TextEncoder
from everstream.apis.openai.chunks import ChunkEncoder, ChunkFormat
from everstream.client.sse import Decoder as ClientDecoder
from everstream.errors import InvalidInput
from everstream.log.entries import Entry, compact, decode_entry, decode_live, encode_entry, encode_json
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.direct_writer import http_chunk
from everstream.web.event_encoder import EventEncoder
from everstream.web.live_batch import MAX_CHUNK_BYTES, LiveBatch
from harness.sse_client import Decoder

GENERATION = "0123456789abcdef" * 2
_KNOWN = Generation(GENERATION, "open", "model", 0, 1_700_000_000)
ENCODERS = [
    EventEncoder(GENERATION),
    ChunkEncoder(_KNOWN, ChunkFormat(is_chat=True, include_usage=True, has_ids=True)),
    ChunkEncoder(_KNOWN, ChunkFormat(is_chat=False, has_ids=True)),
]


@given(st.lists(st.text(), min_size=1), st.integers(1, 50))
def test_any_text_survives_any_chunking(texts, size):
    entries = [Entry(n, "", encode_json({"text": text})) for n, text in enumerate(texts, 1)]
    encoder = EventEncoder(GENERATION)
    wire = b"".join(encoder.entry(entry) for entry in entries)
    decoder = Decoder()
    events = [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]
    assert [event.json["text"] for event in events] == texts
    assert [event.id for event in events] == [f"{GENERATION}.{n}" for n in range(1, len(texts) + 1)]


TEXT_ENCODER = TextEncoder(GENERATION)
LINES = st.text("\r\n a:\u2028\x85\x0b\x0c\x1c\0")


@given(LINES | st.text(), st.text(), st.integers(1, 9))
def test_text_lines_carry_any_text(text, after, size):
    """As the client's decoder reads them: exactly, but for ends of lines."""
    events = decoded(b"".join(sse.text_lines(each) + b"\n" for each in (text, after)), size)
    assert [event.data for event in events] == [with_lf(each) for each in (text, after)]


def decoded(wire, size=1 << 20):
    decoder = ClientDecoder(1 << 20)
    return [event for at in range(0, len(wire), size) for event in decoder.feed(wire[at : at + size])]


def with_lf(text):
    return re.sub("\r\n?", "\n", text)


@given(st.lists(LINES | st.text(), min_size=1))
def test_texts_themselves_are_the_data(texts):
    """One event each, also of an empty text, so that the ids are those of the JSON."""
    entries = [Entry(n, "", encode_json({"text": text, "more": 1})) for n, text in enumerate(texts, 1)]
    events = decoded(b"".join(TEXT_ENCODER.entry(entry) for entry in entries))
    assert [(event.type, event.data) for event in events] == [("message", with_lf(text)) for text in texts]
    assert [event.id for event in events] == [f"{GENERATION}.{entry.n}" for entry in entries]


@pytest.mark.parametrize("output", [{"n": 7, "a\n": "b\r"}, {"text": 7}, {"text": None}, {}])
def test_output_without_text_is_its_json(output):
    (event,) = decoded(TEXT_ENCODER.entry(Entry(7, "", encode_json(output))))
    assert event.data == encode_json(output).decode()


@pytest.mark.parametrize("name", ["resumed", "done", "failed"])
def test_other_events_are_json_in_every_format(name):
    entry = Entry(7, name, b'{"text":"a"}')
    assert TEXT_ENCODER.entry(entry) == EventEncoder(GENERATION).entry(entry)


def test_ids_of_texts_are_signed():
    encoder = TextEncoder(GENERATION, signature="f" * 32)
    (event,) = decoded(encoder.token(7, b'{"text":"a\\nb"}'))
    assert (event.id, event.data) == (f"{GENERATION}.7.{'f' * 32}", "a\nb")
    assert encoder.format != TEXT_ENCODER.format


@given(st.text(), st.text(), st.text())
def test_entry_survives_the_log_and_the_channel(text, event, resume):
    encoded = encode_entry(event, {"text": text})
    assert b"\n" not in encoded
    from_log = decode_entry(7, encoded, resume.encode())
    ((generation, first, entries),) = decode_live(f'[["{GENERATION}",7,[{encoded.decode()}]]]'.encode())
    live = LiveBatch(first, entries)
    (from_channel,) = live.entries
    assert (generation, live.first, live.last) == (GENERATION, 7, 7)
    assert (from_log.n, from_log.event, from_log.data) == (from_channel.n, from_channel.event, from_channel.data)
    assert from_log.resume == resume.encode()


@given(st.lists(st.text() | st.just(None), max_size=20))
def test_compact_entries_have_the_same_text(texts):
    """None stands for an entry that is not text alone."""
    others = encode_json({"text": "a", "choices": []})
    entries = [Entry(n, "", others if text is None else encode_json({"text": text})) for n, text in enumerate(texts, 1)]
    made = compact(entries)
    assert "".join(msgspec.json.decode(entry.data)["text"] for entry in made) == "".join(
        msgspec.json.decode(entry.data)["text"] for entry in entries
    )
    assert [entry for entry in made if b"choices" in entry.data] == [e for e in entries if b"choices" in e.data]
    assert made[:1] == entries[:1] and [entry.n for entry in made[-1:]] == [entry.n for entry in entries[-1:]]
    is_text = [b"choices" not in entry.data and entry.data != b'{"text":""}' for entry in made]
    assert (True, True, True) not in list(zip(is_text, is_text[1:], is_text[2:], strict=False))


def live_batch(first, *entries):
    ((_, first, raw),) = decode_live(b'[["%b",%d,[%b]]]' % (GENERATION.encode(), first, b",".join(entries)))
    return LiveBatch(first, raw)


DIRECT_ENCODERS = [
    *ENCODERS,
    ChunkEncoder(_KNOWN, ChunkFormat(is_chat=True)),
    TEXT_ENCODER,
    GenerateEncoder(_KNOWN),
    InferEncoder(_KNOWN, request_id="", wanted=()),
    GenerationEncoder(_KNOWN, "", 0),
]
"""Of the formats that clients' sockets get straight from the live channel."""
OUTPUTS = st.fixed_dictionaries({}, optional={"text": st.text() | st.integers() | st.none(), "more": st.text()})


@pytest.mark.parametrize("first", [1, 7])
@pytest.mark.parametrize("encoder", DIRECT_ENCODERS, ids=lambda encoder: encoder.format)
@given(output=st.builds(lambda text: {"text": text}, st.text() | st.text('\\"}]a')) | OUTPUTS)
def test_direct_write_of_one_output_equals_the_greenlets(encoder, first, output):
    live = live_batch(first, encode_entry("", output))
    (entry,) = live.entries
    body = encoder.entry(entry)
    assert live.chunk(encoder) == http_chunk(body)
    assert (entry.n, live.last, json.loads(entry.data)) == (first, first, output)


@pytest.mark.parametrize("encoder", DIRECT_ENCODERS, ids=lambda encoder: encoder.format)
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_direct_write_equals_the_greenlets_output(encoder, texts):
    live = live_batch(7, *(encode_entry("", {"text": text}) for text in texts))
    size, _, body = live.chunk(encoder).partition(b"\r\n")
    assert body == b"".join(encoder.entry(entry) for entry in live.entries) + b"\r\n"
    assert int(size, 16) == len(body) - 2


@pytest.mark.parametrize("chunks", ENCODERS[1:], ids=lambda encoder: encoder.format)
def test_openai_chunks_of_resumed_and_terminal_entries(chunks):
    def events_of(event, **data):
        return Decoder().feed(chunks.entry(Entry(7, event, encode_json(data))))

    assert chunks.entry(Entry(7, "resumed", b'{"attempt":2}')) == b": resumed\n"
    first, *_, last = events_of("done", finish_reason="length", usage=None)
    assert first.json["choices"][0]["finish_reason"] == "length"
    assert (first.id, last.id, last.data) == (f"{GENERATION}.7-0", f"{GENERATION}.7", "[DONE]")
    for event, data, code in (
        ("failed", {"code": "model_error", "message": "it raised"}, "model_error"),
        ("cancelled", {"reason": "abandoned"}, "cancelled"),
    ):
        (error,) = events_of(event, **data)
        assert (error.id, error.json["error"]["code"]) == (f"{GENERATION}.7", code)


@pytest.mark.parametrize("output", [{"n": 7}, {"text": 7}, {"text": None}])
def test_output_without_text_is_sent_as_json(output):
    (event,) = Decoder().feed(ENCODERS[2].entry(Entry(7, "", encode_json(output))))
    assert json.loads(event.json["choices"][0]["text"]) == output


@pytest.mark.parametrize("last", [encode_entry("done", {}), encode_entry("resumed", {"attempt": 2})])
def test_only_tokens_are_written_directly(last):
    assert live_batch(1, encode_entry("", {"text": "a"}), last).chunk(EventEncoder(GENERATION)) == b""


def test_large_entry_is_not_written_directly():
    for size in (MAX_CHUNK_BYTES - 10, MAX_CHUNK_BYTES + 1):
        assert live_batch(1, encode_entry("", {"text": "a" * size})).chunk(EventEncoder(GENERATION)) == b""


def test_output_without_an_event_does_not_end_the_response():
    """An empty chunk would."""
    live = live_batch(7, encode_entry("", {"text": "", "choices": []}))
    assert ENCODERS[1].entry(live.entries[0]) == live.chunk(ENCODERS[1]) == b""


def test_each_format_is_encoded_once():
    live = live_batch(1, encode_entry("", {"text": "a"}))
    assert live.chunk(EventEncoder(GENERATION)) is live.chunk(EventEncoder(GENERATION))
    others = [live.chunk(encoder) for encoder in (ENCODERS[1], TEXT_ENCODER)]
    assert len({live.chunk(EventEncoder(GENERATION)), *others}) == 3


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        (f"{GENERATION}.0", (GENERATION, 0, None, "")),
        (f"{GENERATION}.31", (GENERATION, 31, None, "")),
        (f"{GENERATION}.31-2", (GENERATION, 31, 2, "")),
        (f"{GENERATION}.expired", (GENERATION, None, None, "")),
        (f"{GENERATION}.31.{'f' * 32}", (GENERATION, 31, None, "f" * 32)),
        (f"{GENERATION}.expired.{'f' * 32}", (GENERATION, None, None, "f" * 32)),
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
        f"{GENERATION}.7-",
        f"{GENERATION}.7-01",
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
