"""What requests publish: messages as the log keeps them, or an error that names the field at fault."""

import base64
import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from everstream.apis.durable_streams import requests
from everstream.errors import InvalidInput
from everstream.log.entries import decode_entry
from everstream.log.topic_records import JSON, Producer
from everstream.web import publications
from everstream.web.publications import MAX_ID_CHARS, MAX_INTEGER, MAX_MESSAGES, MAX_TTL_S, OWN_EVENTS, MessageOptions

BINARY = "application/octet-stream"
TEXT = "text/plain"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def messages(body, content_type=JSON):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [publications.message_of(each, content_type) for each in publications.parse(body)]


def refusal(action, *given, **options):
    with pytest.raises(InvalidInput) as refused:
        action(*given, **options)
    return refused.value


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_any_json_is_one_line_with_the_same_value(value, indent, is_ascii):
    body = json.dumps({"data": value}, indent=indent, ensure_ascii=is_ascii).encode(errors="surrogatepass")
    (found,) = messages(body)
    entry = decode_entry(1, found.entry.encode())
    assert json.loads(entry.data) == value and entry.event == ""
    assert not {b"\n", b"\r"} & {entry.data[at : at + 1] for at in range(len(entry.data))}


@given(st.lists(st.tuples(VALUES, st.sampled_from(["", "note", "a.b:c-d_E9"]), st.text(max_size=8)), min_size=1))
def test_list_is_a_message_each(given):
    body = [{"data": data, "event": event, "id": message_id} for data, event, message_id in given]
    found = messages(body)
    entries = [decode_entry(1, each.entry.encode()) for each in found]
    assert [(json.loads(each.data), each.event) for each in entries] == [each[:2] for each in given]
    assert [each.id for each in found] == [each[2] for each in given]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "body"),
        (b"3", "body"),
        (b"null", "body"),
        (b'"a"', "body"),
        (b'{"data":1} x', "body"),
        (b'{"data":1', "body"),
        (b"\xef\xbb\xbf{}", "body"),
        ([], "body"),
        ([{"data": 1}] * (MAX_MESSAGES + 1), "body"),
        ([[{"data": 1}]], "body"),
        ({}, "data"),
        ({"data": 1, "base64": ""}, "data"),
        ({"data": 1, "dat": 2}, "dat"),
        ({"data": 1, "é\n": 2}, "é\n"),
        ([{"data": 1}, {"data": 1, "x" * 300: 1}], "x" * 100),
        *(
            ({"data": 1, "event": event}, "event")
            for event in (3, None, "a\r\nb", "a\n", "é", " ", "x" * 65, *OWN_EVENTS)
        ),
        *(({"data": 1, "id": given}, "id") for given in (3, None, "x" * (MAX_ID_CHARS + 1))),
        *(({"data": 1, "ttl_s": given}, "ttl_s") for given in (0, -1, "5", True, MAX_TTL_S + 1, 1e300, [1])),
        ([{"data": 1}, {"data": 1, "ttl_s": "x"}], "ttl_s"),
        ({"data": 1, "topic": 3}, "topic"),
        ({"base64": "%%"}, "base64"),
        (b'{"data":NaN}', "body"),
        (b'{"data":[-Infinity]}', "body"),
        (b'{"data":01}', "body"),
        (b'{"data":"a\nb"}', "body"),
        (b'{"data":"\\x"}', "body"),
        (b'{"data":"\\ud800"}', "body"),
        (b'{"data":{"\\udc00":1}}', "body"),
        (b'{"data":1,"id":"\\ud800"}', "body"),
        (b'{"data":"\xff"}', "data"),
        (b'{"data":"\xed\xa0\x80"}', "data"),
        (b'{"data":1,"id":"\xff"}', "body"),
        (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "data"),
        (b'{"data":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", "data"),
    ],
)
def test_bad_messages_name_the_field_at_fault(body, param):
    assert refusal(messages, body).param == param


def test_unusual_json_is_kept_as_it_is():
    """Numbers that no float can hold, and keys that are repeated, are the followers' to read."""
    for data in (b"1e999", b"-0.0", b"9" * 5000, b'{"a":1,"a":2}', b'"\\u0000\\ud83d\\ude00"', b"[]"):
        (found,) = messages(b'{"data":' + data + b"}")
        assert found.entry.encode() == b'["",' + data + b"]"
    assert messages(b'{"data":1,"data":2}')[0].entry == '["",2]'


def test_whatever_depth_is_taken_can_be_read_in_other_arrays():
    """Else one message would stop all followers."""
    depth = next(depth for depth in range(2000, 0, -1) if is_taken(b"[" * depth + b"]" * depth))
    assert depth > 200
    deepest = b"[" * (depth + 20) + b"]" * (depth + 20)
    msgspec.json.decode(b"[[[" + deepest + b"]]]", type=list[list[msgspec.Raw]])


def is_taken(data):
    try:
        publications.compact_json(data)
    except InvalidInput:
        return False
    return True


def test_topics_of_other_types_take_other_data():
    assert messages({"data": "a"}, TEXT)[0].entry == '["","a"]'
    assert refusal(messages, {"data": 1}, TEXT).param == "data"
    assert messages({"base64": "AAE="}, BINARY)[0].entry == '["","AAE="]'
    for body in ({"data": "a"}, {"base64": "AAE=", "data": 1}, {}):
        assert refusal(messages, body, BINARY).param == "base64"


def test_time_to_live_counts_from_now():
    before = int(time.time() * 1000)
    (found,) = messages({"data": 1, "ttl_s": 2.5})
    assert before + 2500 <= found.expires_ms <= int(time.time() * 1000) + 2500
    assert messages({"data": 1, "ttl_s": None})[0].expires_ms == 0
    assert messages({"data": 1, "ttl_s": MAX_TTL_S})[0].expires_ms > 0


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_is_a_json_string(text):
    data = publications.data_of_body(text.encode(), TEXT)
    assert json.loads(data) == text and b"\n" not in data


@given(st.binary())
def test_bytes_are_base64(body):
    assert base64.b64decode(json.loads(publications.data_of_body(body, BINARY))) == body
    data = json.loads(publications.data_of_body(body, TEXT))
    assert (data.encode() if isinstance(data, str) else base64.b64decode(data[0])) == body


def test_text_that_is_not_utf8_is_refused():
    publications.check_text("é".encode())
    assert refusal(publications.check_text, b"\xff").param == "body"


@pytest.mark.parametrize(
    ("args", "param"),
    [
        ({"event": "a", "ttl_s": "x"}, "ttl_s"),
        ({"event": "a", "id": "x" * (MAX_ID_CHARS + 1)}, "id"),
        *(({"ttl_s": text}, "ttl_s") for text in ("nan", "inf", "-1", "0", "1e9", "")[:5]),
    ],
)
def test_bad_options_in_the_query_name_the_field_at_fault(args, param):
    assert refusal(publications.options_of, args).param == param


def test_options_in_the_query():
    found = publications.options_of({"event": "a", "id": "1", "ttl_s": "1.5", "topic": "ignored", "data": "ignored"})
    assert found == MessageOptions("a", "1", 1.5)
    assert publications.options_of({"event": "", "ttl_s": ""}) == MessageOptions()
    assert refusal(publications.new_message, b"1", MessageOptions("open")).param == "event"


PRODUCER = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": str(MAX_INTEGER)}


def test_producer():
    assert publications.producer_of(Headers(PRODUCER)) == Producer("p", 0, MAX_INTEGER)
    assert publications.producer_of(Headers()) is None


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        *((name, None, "Producer-Id") for name in PRODUCER),
        *(("Producer-Id", value, "Producer-Id") for value in ("", "a b", "x" * (MAX_ID_CHARS + 1))),
        *(
            (name, value, name)
            for name in ("Producer-Epoch", "Producer-Seq")
            for value in ("", "-1", "+1", "1.0", "x", " 1", "\u0661", str(MAX_INTEGER + 1), "9" * 17)
        ),
    ],
)
def test_bad_producers_name_the_header_at_fault(name, value, param):
    given = {key: each for key, each in (PRODUCER | {name: value}).items() if each is not None}
    assert refusal(publications.producer_of, Headers(given)).param == param


@pytest.mark.parametrize(
    "body", [b"{", b"1],[2", b"NaN", b"[1,]", b"[" * 5000 + b"]" * 5000, b'"\xff"', b"[1] 2", b'["\xff"]']
)
def test_bad_bodies_of_durable_streams(body):
    assert refusal(requests.messages_of, body, JSON, may_be_empty=False).param == "body"


def test_bodies_of_durable_streams():
    def entries(body, content_type=JSON):
        return [each.entry for each in requests.messages_of(body, content_type, may_be_empty=True)]

    assert entries(b' [1, [2], {"a": "b c"}] ') == ['["",1]', '["",[2]]', '["",{"a":"b c"}]']
    assert entries(b" 1 ") == ['["",1]'] and entries(b"[]") == entries(b"") == []
    assert entries(b"a\n", TEXT) == ['["","a\\n"]'] and entries(b"\0", BINARY) == ['["","AA=="]']
    assert refusal(requests.messages_of, b"[]", JSON, may_be_empty=False).param == "body"
    many = b"[" + b"1," * requests.MAX_MESSAGES + b"1]"
    assert refusal(requests.messages_of, many, JSON, may_be_empty=False).param == "body"
