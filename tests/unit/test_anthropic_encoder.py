"""The Messages API on the wire, read back by the standard's own rules."""

import json
from itertools import pairwise

from hypothesis import given

from everstream.apis.anthropic.encoder import MessageEncoder
from everstream.apis.anthropic.events import MessageEvents
from everstream.errors import QueueFull
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from everstream.web.sse import GREETING, Queued, parse_event_id
from harness.chat_outputs import ENDS, OUTPUTS, call, calls, entries, piece
from harness.sse_client import Decoder

GENERATION = Generation("0123456789abcdef" * 2, "open", "demo", 0)


def wire(log, seen=None, has_ids=True):
    """A stream of the whole log, or its rest for a client that has seen this id."""
    encoder = MessageEncoder(GENERATION, has_ids=has_ids)
    if seen is not None:
        encoder.resume(parse_event_id(seen, "Last-Event-ID"))
    return encoder.start(1000, is_new=seen is None) + b"".join(encoder.entry(entry) for entry in log)


@given(OUTPUTS, ENDS)
def test_after_every_event_a_client_gets_exactly_the_rest(outputs, end):
    log = entries(*outputs, **end)
    uncut = Decoder().feed(wire(log))
    for cut, last in enumerate(uncut, 1):
        rest = wire(log, seen=last.id)
        assert rest.startswith(GREETING)
        assert uncut[:cut] + Decoder().feed(rest) == uncut


@given(OUTPUTS, ENDS)
def test_all_events_are_sent(outputs, end):
    log, machine = entries(*outputs, **end), MessageEvents(GENERATION)
    made = [*machine.start(), *(event for entry in log for event in machine.entry(entry))]
    for has_ids in (False, True):
        sent = Decoder().feed(wire(log, has_ids=has_ids))
        assert [event.json for event in sent] == [json.loads(encode_json(event)) for event in made]


@given(OUTPUTS, ENDS)
def test_ids_say_which_events_of_an_entry_were_seen(outputs, end):
    places = [parse_event_id(event.id, "id") for event in Decoder().feed(wire(entries(*outputs, **end)))]
    assert places[0] == (GENERATION.id, 0, None, "")
    assert len(set(places)) == len(places)
    for earlier, later in pairwise(places):
        # Only the last event of an entry says that all of them were seen.
        expected = (later.n, 0) if earlier.part is None else (earlier.n, earlier.part + 1)
        assert (later.n, later.part or expected[1]) == expected
        assert later.n > earlier.n or earlier.part is not None


def test_ids_only_for_those_who_ask():
    log = entries(piece(reasoning="hm"), calls(call(0, "{}", name="f")), {"text": "a"})
    plain = wire(log, has_ids=False)
    assert plain.startswith(b"event: message_start\ndata: {")
    assert b"id:" not in plain.replace(b'"id":', b"")
    assert [(event.type, event.data) for event in Decoder().feed(plain)] == [
        (event.type, event.data) for event in Decoder().feed(wire(log))
    ]


def test_each_event_is_named_after_its_type():
    events = Decoder().feed(wire(entries({"text": "a\nb\u2028"})))
    assert [event.type for event in events] == [event.json["type"] for event in events]
    assert events[2].json["delta"]["text"] == "a\nb\u2028"


def test_heartbeats():
    encoder = MessageEncoder(GENERATION, has_ids=True)
    ping = Decoder().feed(encoder.heartbeat)
    assert [(event.type, event.json, event.id) for event in ping] == [("ping", {"type": "ping"}, "")]
    decoder = Decoder()
    assert decoder.feed(encoder.queued(Queued(3, 3))) == []
    assert decoder.comments == ["queued 3"]


def test_an_end_that_is_not_in_the_log():
    for has_ids, event_id in ((True, f"{GENERATION.id}.expired"), (False, "")):
        (lost,) = Decoder().feed(MessageEncoder(GENERATION, has_ids=has_ids).lost(QueueFull("too many")))
        assert (lost.type, lost.id) == ("error", event_id)
        assert lost.json["error"]["type"] == "overloaded_error"


def test_a_worker_that_stops():
    """Whoever can come back should; others would take the end of the stream for that of the message."""
    assert Decoder().feed(MessageEncoder(GENERATION, has_ids=True).reconnect(1000)) == []
    (stopped,) = Decoder().feed(MessageEncoder(GENERATION, has_ids=False).reconnect(1000))
    assert stopped.json["error"]["details"]["error_code"] == "shutting_down"


def test_a_token_is_an_entry():
    one, other = MessageEncoder(GENERATION, has_ids=True), MessageEncoder(GENERATION, has_ids=True)
    for n in (1, 2):
        assert one.token(n, b'{"text":"a"}') == other.entry(Entry(n, "", b'{"text":"a"}'))
