"""Topics' messages as events: each decodes to what was published, and after any byte a client knows where to go on."""

import base64
import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everstream.apis.durable_streams import cdn_cursor
from everstream.apis.durable_streams.encoder import DurableEncoder, body_of
from everstream.apis.topics.encoder import TopicEventEncoder
from everstream.errors import InternalError
from everstream.log.topic_records import JSON, Message, TopicPage
from everstream.web.publications import compact_json, data_of_body
from harness.sse_client import Decoder

AFTER = 1000
TOP = 9_999_999_999_999_999
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["\r\n", "\r", " a", "\u2028", ""]
)
VALUES = st.none() | st.integers() | TEXTS | st.lists(TEXTS, max_size=2)
LOGS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["a", "b/c"]), st.sampled_from(["", "note"]), VALUES), max_size=6
)


def log_of(given):
    """Messages at growing positions."""
    position, log = AFTER, []
    for step, topic, event, value in given:
        position += step
        log.append(Message(topic, position, event, compact_json(json.dumps(value).encode())))
    return log


def stream(encoder, log, after, *, is_first=False, page_size=2, live_from=4):
    """All bytes that a client of this log gets: pages, then live messages."""
    yield encoder.start(50)
    following = [each for each in log if each.position > after]
    read, live = following[:live_from], following[live_from:]
    top = max([after, *(each.position for each in read)]) + (0 if live else 5)
    pages = [read[at : at + page_size] for at in range(0, len(read), page_size)] or [[]]
    for number, messages in enumerate(pages, 1):
        more = number < len(pages)
        page = TopicPage(messages, messages[-1].position if more else top, "", more=more, is_closed=False)
        yield from encoder.page(page, is_first=is_first)
        is_first = False
    for each in live:
        yield encoder.live([each])


def seen(events):
    return [(event.id, event.type, event.data) for event in events if event.type != "open"]


def expected(log, *, has_several=False, is_text=False):
    found = []
    for message in log:
        data = message.data.decode()
        if has_several:
            data = f'{{"topic":"{message.topic}","data":{data}}}'
        if is_text:
            value = json.loads(data)
            data = value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else data
        found.append((f"{message.position:016d}", message.event or "message", data))
    return found


@pytest.mark.parametrize("options", [{}, {"has_several": True}, {"is_text": True}], ids=str)
@settings(max_examples=40)
@given(given_log=LOGS)
def test_client_that_is_cut_at_any_byte_gets_the_rest_once(options, given_log):
    log = log_of(given_log)
    whole = b"".join(stream(TopicEventEncoder({}, **options), log, AFTER, is_first=True))
    for cut in range(len(whole) + 1):
        decoder = Decoder()
        events = decoder.feed(whole[:cut])
        if not decoder.last_id:
            # It has seen nothing: it begins again.
            assert seen(events) == []
            continue
        again = Decoder(last_id=decoder.last_id)
        rest = b"".join(stream(TopicEventEncoder({}, **options), log, int(decoder.last_id)))
        assert seen(events + again.feed(rest)) == expected(log, **options)
        assert decoder.ignored == again.ignored == []


def test_first_page():
    encoder = TopicEventEncoder({"topic": "a"})
    decoder = Decoder()
    (opened,) = decoder.feed(b"".join(encoder.page(TopicPage([], 7, "", more=False, is_closed=False), is_first=True)))
    assert (opened.type, opened.data, opened.id) == ("open", '{"topic":"a"}', f"{7:016d}")
    old = Message("a", 3, "", b"1")
    decoder = Decoder()
    events = decoder.feed(b"".join(encoder.page(TopicPage([old], 7, "", more=False, is_closed=False), is_first=True)))
    assert [(event.type, event.id) for event in events] == [("open", ""), ("message", f"{3:016d}")]
    # What others published since the newest message isn't for this client.
    assert decoder.last_id == f"{7:016d}"


def test_reset_comes_before_what_is_not_contiguous():
    encoder, message = TopicEventEncoder({}), Message("a", 30, "", b"1")
    for messages, at in (([message], 29), ([], 40)):
        page = TopicPage(messages, 40, "history", more=False, is_closed=False)
        first, *rest = Decoder().feed(b"".join(encoder.page(page, is_first=False)))
        assert (first.type, first.json, first.id) == ("reset", {"reason": "history"}, f"{at:016d}")
        assert seen(rest) == expected(messages)


def test_end_comes_last():
    page = TopicPage([Message("a", 30, "", b"1")], 40, "", more=False, is_closed=True)
    *_, last = Decoder().feed(b"".join(TopicEventEncoder({}).page(page, is_first=False)))
    assert (last.type, last.json, last.id) == ("closed", {"reason": "closed"}, f"{40:016d}")


def test_ids_of_a_tickets_stream_are_signed():
    encoder = TopicEventEncoder({}, signature="0" * 32)
    (event,) = Decoder().feed(encoder.live([Message("a", TOP, "", b"1")]))
    assert event.id == f"{TOP}.{'0' * 32}"
    assert encoder.format != TopicEventEncoder({}).format


def test_heartbeats_that_a_page_can_see():
    encoder, decoder = TopicEventEncoder({}, ping_ms=1500), Decoder()
    first, second = decoder.feed(encoder.start(70) + encoder.heartbeat)
    assert (first.type, first.json, first.id, second.json) == ("ping", {"interval_ms": 1500}, "", first.json)
    assert decoder.retry_ms == 70
    plain = Decoder()
    assert plain.feed(TopicEventEncoder({}).heartbeat) == [] and plain.comments == ["heartbeat"]


def test_stream_that_cannot_go_on():
    (event,) = Decoder().feed(TopicEventEncoder({}).lost(InternalError()))
    assert (event.type, event.json["code"], event.id) == ("failed", "internal_error", "")


# Durable Streams.


class DurableDecoder:
    """Its client: data counts with the control that follows it."""

    def __init__(self):
        self.decoder, self.data, self.pending, self.control = Decoder(), [], [], {}

    def feed(self, chunk):
        for event in self.decoder.feed(chunk):
            if event.type == "data":
                self.pending.append(event.data)
            else:
                self.data, self.pending, self.control = [*self.data, *self.pending], [], event.json


BODIES = {
    JSON: VALUES.map(lambda value: json.dumps(value).encode()),
    # A carriage return would arrive as a line feed.
    "text/plain": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1).map(
        str.encode
    ),
    "image/png": st.binary(min_size=1, max_size=6),
}


@pytest.mark.parametrize("content_type", BODIES)
@settings(max_examples=25)
@given(st.data())
def test_durable_client_that_is_cut_at_any_byte_gets_the_rest_once(content_type, data):
    bodies = data.draw(st.lists(BODIES[content_type], max_size=6))
    make = compact_json if content_type == JSON else partial(data_of_body, content_type=content_type)
    log = [Message("a", AFTER + 2 * n, "", make(body)) for n, body in enumerate(bodies, 1)]
    whole = b"".join(stream(DurableEncoder(content_type, "", AFTER), log, AFTER, is_first=True))
    for cut in range(len(whole) + 1):
        client, again = DurableDecoder(), DurableDecoder()
        client.feed(whole[:cut])
        offset = int(client.control.get("streamNextOffset", AFTER))
        again.feed(b"".join(stream(DurableEncoder(content_type, "", offset), log, offset, is_first=True)))
        assert value_of(client.data + again.data, content_type) == value_of_bodies(bodies, content_type)


def value_of(found, content_type):
    if content_type == JSON:
        return [each for data in found for each in json.loads(data)]
    if content_type == "image/png":
        return b"".join(map(base64.b64decode, found))
    return "".join(found).encode()


def value_of_bodies(bodies, content_type):
    return [json.loads(body) for body in bodies] if content_type == JSON else b"".join(bodies)


def test_bodies_are_what_was_appended():
    for content_type, bodies in {"text/plain": [b"a", b"\xff", "é".encode()], "image/png": [b"\0", b"\xff"]}.items():
        log = [Message("a", n, "", data_of_body(body, content_type)) for n, body in enumerate(bodies)]
        assert body_of(log, content_type) == b"".join(bodies)
    assert body_of([Message("a", 1, "", b"1"), Message("a", 2, "", b"[2]")], JSON) == b"[1,[2]]"


def test_durable_control():
    encoder = DurableEncoder(JSON, "", 5)
    message = Message("a", 9, "", b"1")
    cases = [
        (TopicPage([], 7, "", more=False, is_closed=False), {"streamNextOffset": f"{5:016d}", "upToDate": True}),
        (TopicPage([], 7, "", more=True, is_closed=False), {"streamNextOffset": f"{7:016d}"}),
        (TopicPage([message], 9, "", more=True, is_closed=False), {"streamNextOffset": f"{9:016d}"}),
        (
            TopicPage([message], 12, "", more=False, is_closed=True),
            {"streamNextOffset": f"{9:016d}", "streamClosed": True, "upToDate": True},
        ),
    ]
    for page, said in cases:
        *_, control = Decoder().feed(b"".join(encoder.page(page, is_first=True)))
        assert control.type == "control"
        assert ("streamCursor" in control.json) != ("streamClosed" in control.json)
        assert {name: value for name, value in control.json.items() if name != "streamCursor"} == said
    assert list(encoder.page(TopicPage([message], 12, "history", more=False, is_closed=False), is_first=False)) == []


def test_end_after_live_messages_names_no_earlier_offset():
    encoder = DurableEncoder(JSON, "", 5)
    list(encoder.page(TopicPage([], 7, "", more=False, is_closed=False), is_first=True))
    # Live messages may be encoded by another stream's encoder.
    DurableEncoder(JSON, "", 5).live([Message("a", 9, "", b"1")])
    ended = b"".join(encoder.page(TopicPage([], 12, "", more=False, is_closed=True), is_first=False))
    (control,) = Decoder().feed(ended)
    assert int(control.json["streamNextOffset"]) >= 9 and control.json["streamClosed"]


@given(st.text(max_size=6) | st.integers(0, 10**15 - 1).map(str), st.integers(0, 10**9))
def test_cursors_always_grow(given, passed):
    now = cdn_cursor.EPOCH_S + passed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: now)
        found = int(cdn_cursor.next_cursor(given))
    current = passed // cdn_cursor.INTERVAL_S
    if given.isascii() and given.isdecimal() and int(given) >= current:
        most = max(1, cdn_cursor.MAX_JITTER_S // cdn_cursor.INTERVAL_S)
        assert int(given) < found <= int(given) + most
    else:
        assert found == current
