"""A response's stream on the wire: ids, cuts, heartbeats; and the pages of its input."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseItemList

from everstream.apis.openai.responses import listing, record
from everstream.apis.openai.responses.encoder import ResponseEncoder
from everstream.apis.openai.responses.events import ResponseEvents
from everstream.apis.openai.responses.history import with_ids
from everstream.apis.openai.responses.items import Item
from everstream.apis.openai.responses.requests import parse
from everstream.contract.chat_outputs import Choice, Ending, Function, ToolCall
from everstream.errors import InvalidInput, UnknownGeneration
from everstream.log.entries import Entry, compact, encode_json
from everstream.log.records import Generation
from everstream.web import sse
from harness.openai_types import validated
from harness.sse_client import Decoder
from tests.unit.test_responses_events import answers

ID = "0123456789abcdef" * 2
GENERATION = Generation(ID, "open", "a-model", 0, 1_700_000_000)
RECORD = record.decoded(record.encoded(parse({"input": "Hi", "instructions": "x"}).request, []))
BACKGROUND = record.decoded(record.encoded(parse({"input": "Hi", "background": True}).request, []))
CALL = {"text": "", "choices": [Choice(tool_calls=[ToolCall(0, Function("now", "{}"), "call_1")])]}
OUTPUTS = [("", {"text": "Why"}), ("resumed", {}), ("", {"text": " not"}), ("", CALL)]
ENTRIES = [
    Entry(n, name, encode_json(data)) for n, (name, data) in enumerate([*OUTPUTS, ("done", Ending("tool_calls"))], 1)
]


def encoder(kept=RECORD, **options):
    return ResponseEncoder(GENERATION, kept, **{"has_ids": True, **options})


def wire(found, *, is_new=True):
    return found.start(50, is_new=is_new) + b"".join(found.entry(entry) for entry in ENTRIES)


def events_on(bytes_sent):
    decoder = Decoder()
    events = decoder.feed(bytes_sent)
    assert decoder.ignored == []
    return [(event.type, event.id, event.data) for event in events]


@pytest.mark.parametrize("kept", [RECORD, BACKGROUND])
def test_ids_name_the_entry_and_the_part(kept):
    events = events_on(wire(encoder(kept)))
    ids = [event_id.removeprefix(f"{ID}.") for _, event_id, _ in events]
    first = ["0-0", "0", "1-0", "1-1", "1-2", "1"] if kept is BACKGROUND else ["0-0", "0", "1-0", "1-1", "1"]
    assert ids == [*first, "3", "4-0", "4-1", "4-2", "4-3", "4", "5-0", "5-1", "5"]
    assert [msgspec.json.decode(data)["type"] for _, _, data in events] == [name for name, _, _ in events]


def test_lines_readers_get_no_ids_and_no_comments():
    bytes_sent = wire(encoder(has_ids=False))
    assert bytes_sent.startswith(b'event: response.created\ndata: {"type":"response.created"')
    assert b"\nid: " not in bytes_sent
    assert [event[2] for event in events_on(bytes_sent)] == [event[2] for event in events_on(wire(encoder()))]


@pytest.mark.parametrize("kept", [RECORD, BACKGROUND])
@pytest.mark.parametrize("has_ids", [False, True])
def test_stream_cut_after_any_event_is_resumed_there(kept, has_ids):
    whole = events_on(wire(encoder(kept)))
    for seen in range(len(whole)):
        again = encoder(kept)
        again.resume(sse.parse_event_id(whole[seen][1], "id"))
        assert whole[: seen + 1] + events_on(wire(again, is_new=False)) == whole
        again = encoder(kept, has_ids=has_ids, starting_after=seen)
        rest = events_on(wire(again))
        assert [event[2] for event in whole[: seen + 1] + rest] == [event[2] for event in whole]
        assert not has_ids or whole[: seen + 1] + rest == whole


@given(answers(), st.booleans())
def test_every_event_is_framed_as_it_is(entries, is_background):
    """Also those of texts, most of which are not decoded."""
    kept = BACKGROUND if is_background else RECORD
    machine = ResponseEvents(GENERATION, kept.echoed, is_background=is_background)
    events = [*machine.opening(), *(event for entry in entries for event in machine.entry(entry))]
    expected = [(event.name, "", encode_json(event).decode()) for event in events]
    found = encoder(kept, has_ids=False)
    assert events_on(found.start(50, is_new=True) + b"".join(found.entry(entry) for entry in entries)) == expected


def test_late_joiner_gets_the_text_in_one_event_and_all_other_numbers_as_they_are():
    texts = [("", {"text": text}) for text in ("a", "b", "c", "", "d", "e")]
    named = [("resumed", {}), *texts, ("", CALL), *texts[:2], ("done", Ending("stop"))]
    entries = [Entry(n, name, encode_json(data)) for n, (name, data) in enumerate(named, 1)]

    def events_of(given, **options):
        found = encoder(BACKGROUND, **options)
        return events_on(found.start(50, is_new=True) + b"".join(found.entry(entry) for entry in given))

    whole, joined = events_of(entries), events_of(compact(entries))
    deltas = [msgspec.json.decode(data)["delta"] for name, _, data in joined if name == "response.output_text.delta"]
    assert deltas == ["a", "bc", "d", "e", "a", "b"]
    assert [event for event in joined if "output_text.delta" not in event[0]] == [
        event for event in whole if "output_text.delta" not in event[0]
    ]
    for place, (_, _, data) in enumerate(joined):
        seen = msgspec.json.decode(data)["sequence_number"]
        rest = events_of(entries, starting_after=seen)
        assert rest == whole[seen + 1 :]
        texts_after = [
            msgspec.json.decode(each)["delta"] for name, _, each in joined[place + 1 :] if "text.delta" in name
        ]
        assert "".join(texts_after) == "".join(
            msgspec.json.decode(each)["delta"] for name, _, each in rest if "text.delta" in name
        )


@given(st.integers(0, 20), st.integers(0, 30))
def test_id_or_number_that_no_event_has_repeats_nothing_that_was_seen(n, part):
    whole = events_on(wire(encoder()))
    again = encoder()
    again.resume(sse.EventId(ID, n, part))
    rest = events_on(wire(again, is_new=False))
    assert rest == whole[len(whole) - len(rest) :]
    assert all((int(event_id.rpartition(".")[2].partition("-")[0])) >= n for _, event_id, _ in rest)


def test_heartbeat_repeats_the_response_without_its_output():
    found = encoder(has_ids=False)
    found.start(50, is_new=True)
    found.entry(ENTRIES[0])
    ((name, _, data),) = events_on(found.heartbeat)
    beat = msgspec.json.decode(data)
    assert (name, beat["sequence_number"], beat["response"]["output"]) == ("response.in_progress", 4, [])
    assert b"id: " not in encoder().heartbeat


@pytest.mark.parametrize("seen", [{"n": 3}, {"starting_after": 5}])
def test_heartbeat_is_silent_about_what_was_seen(seen):
    found = encoder(starting_after=seen.get("starting_after", -1))
    if "n" in seen:
        found.resume(sse.EventId(ID, seen["n"]))
    found.start(50, is_new=False)
    for entry in ENTRIES[:2]:
        assert found.entry(entry) == b""
        assert found.heartbeat == b": heartbeat\n"
    found.entry(ENTRIES[2])
    assert events_on(found.heartbeat)[0][0] == "response.in_progress"


def test_queue_is_a_comment_without_an_empty_line():
    for bytes_sent in (encoder().queued(sse.Queued(3, 3)), encoder().reconnect(50)):
        assert bytes_sent.startswith(b": ")
        assert bytes_sent.count(b"\n") == 1


def test_stream_that_cant_go_on_ends_with_an_error():
    found = encoder()
    found.start(50, is_new=True)
    ((name, event_id, data),) = events_on(found.lost(UnknownGeneration()))
    assert (name, event_id, msgspec.json.decode(data)["code"]) == ("error", f"{ID}.expired", "generation_expired")
    found = encoder(has_ids=False)
    found.start(50, is_new=True)
    ((name, event_id, data),) = events_on(found.reconnect(50))
    assert (name, event_id, msgspec.json.decode(data)["code"]) == ("error", "", "shutting_down")


def test_record_keeps_what_is_needed():
    items = [Item(role="user", content="Hi"), Item(type="reasoning", summary=[])]
    request = parse(
        {"input": "Hi", "store": False, "metadata": {"a": "b"}, "tools": [{"type": "function", "name": "x"}]}
    )
    kept = record.decoded(record.encoded(request.request, items))
    assert (kept.is_background, kept.is_stored) == (False, False)
    assert msgspec.json.decode(kept.echoed["metadata"]) == {"a": "b"}
    assert kept.items(ID) == with_ids(items, ID)


@pytest.mark.parametrize("data", [None, b"", b'{"type":"message"}', b"{}"])
def test_other_records_are_none(data):
    assert record.decoded(data) is None


ITEMS = with_ids([Item(role="user", content=str(n)) for n in range(45)], ID)


def pages(**query):
    """All pages, as a client asks for them."""
    found = []
    for _ in range(50):
        page = listing.page(ITEMS, query)
        validated(ResponseItemList, encode_json(page))
        found.append(page["data"])
        if not page["has_more"]:
            break
        query["after"] = page["last_id"]
    return found


@pytest.mark.parametrize("limit", [None, 1, 7, 45, 100])
@pytest.mark.parametrize("order", [None, "asc", "desc"])
def test_pages_together_are_all_items(limit, order):
    query = {"limit": limit and str(limit), "order": order}
    found = pages(**{name: value for name, value in query.items() if value})
    assert all(len(page) == (limit or 20) for page in found[:-1])
    texts = [item["content"][0]["text"] for page in found for item in page]
    assert texts == [str(n) for n in (range(45) if order == "asc" else range(44, -1, -1))]


def test_page_after_the_last_item_is_empty():
    page = listing.page(ITEMS, {"order": "asc", "after": ITEMS[-1].id})
    assert (page["data"], page["has_more"]) == ([], False)
    validated(ResponseItemList, encode_json(page))


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"limit": "9" * 5000}, {"order": "up"}, {"after": "msg_x"}],
)
def test_page_that_cant_be_is_refused(query):
    with pytest.raises(InvalidInput) as raised:
        listing.page(ITEMS, query)
    assert raised.value.param == next(iter(query))
