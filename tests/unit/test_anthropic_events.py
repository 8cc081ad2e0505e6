"""The events of an Anthropic message, from the entries of a generation."""

import json

import pytest
from hypothesis import given

from everstream.apis.anthropic.errors import error_body
from everstream.apis.anthropic.events import SIGNATURE, MessageEvents
from everstream.apis.anthropic.whole_message import whole_message
from everstream.errors import (
    BodyTooLarge,
    EverstreamError,
    InternalError,
    InvalidInput,
    QueueFull,
    RequestConflict,
    TooManyChecks,
    UnknownGeneration,
)
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from harness.chat_outputs import ENDS, OUTPUTS, USAGE, call, calls, end, entries, piece

GENERATION = Generation("0123456789abcdef" * 2, "open", "demo", 0)


def events_of(log):
    """Each event with its place: the entry's number, and which of the entry's events it is."""
    machine = MessageEvents(GENERATION)
    made = [(0, machine.start()), *((entry.n, machine.entry(entry)) for entry in log)]
    return [((n, i), event) for n, events in made for i, event in enumerate(events)]


def events(*outputs, **end):
    return [event for _, event in events_of(entries(*outputs, **end))]


def streamed(*outputs, **end):
    return [json.loads(encode_json(event)) for event in events(*outputs, **end)]


def whole(*outputs, **end):
    return json.loads(encode_json(whole_message(events(*outputs, **end))))


def start(index, block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, text):
    name = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}.get(
        kind, "partial_json"
    )
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: text}}


def stop(index):
    return {"type": "content_block_stop", "index": index}


def ends(reason, sequence=None):
    return [
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": {"input_tokens": 12, "output_tokens": 5},
        },
        {"type": "message_stop"},
    ]


EMPTY_TEXT = {"type": "text", "text": ""}
BEGINNING = {
    "type": "message_start",
    "message": {
        "type": "message",
        "id": "msg_" + GENERATION.id,
        "role": "assistant",
        "model": "demo",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    },
}


def test_text():
    assert streamed({"text": "The"}, {"text": " end"}) == [
        BEGINNING,
        start(0, EMPTY_TEXT),
        delta(0, "text_delta", "The"),
        delta(0, "text_delta", " end"),
        stop(0),
        *ends("end_turn"),
    ]
    assert whole({"text": "The"}, {"text": " end"}) == {
        **BEGINNING["message"],
        "content": [{"type": "text", "text": "The end"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "output_tokens": 5},
    }


def test_thinking_text_and_calls_are_blocks_in_turn():
    outputs = [
        piece(reasoning="Which"),
        piece(reasoning=" city?", text="Let me look."),
        calls(call(0, name="weather")),
        calls(call(0, '{"city":'), call(0, '"Paris"}'), call(1, "{}", name="time")),
    ]
    assert streamed(*outputs, finish_reason="tool_calls") == [
        BEGINNING,
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, "thinking_delta", "Which"),
        delta(0, "thinking_delta", " city?"),
        delta(0, "signature_delta", SIGNATURE),
        stop(0),
        start(1, EMPTY_TEXT),
        delta(1, "text_delta", "Let me look."),
        stop(1),
        start(2, {"type": "tool_use", "id": "call_0", "name": "weather", "input": {}}),
        delta(2, "input_json_delta", '{"city":'),
        delta(2, "input_json_delta", '"Paris"}'),
        stop(2),
        start(3, {"type": "tool_use", "id": "call_1", "name": "time", "input": {}}),
        delta(3, "input_json_delta", "{}"),
        stop(3),
        *ends("tool_use"),
    ]
    assert whole(*outputs, finish_reason="tool_calls")["content"] == [
        {"type": "thinking", "thinking": "Which city?", "signature": SIGNATURE},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "call_1", "name": "time", "input": {}},
    ]


def test_text_amid_a_call_follows_it():
    """A parser of vLLM's may send the rest of a call's arguments after text."""
    outputs = [calls(call(0, '{"a":', name="f")), {"text": "\n"}, {"text": "so"}, calls(call(0, "1}"))]
    after = [start(1, EMPTY_TEXT), delta(1, "text_delta", "\nso"), stop(1)]
    another = {"type": "tool_use", "id": "call_1", "name": "g", "input": {}}
    made = streamed(*outputs, calls(call(1, name="g")))
    assert made[4:] == [stop(0), *after, start(2, another), stop(2), *ends("tool_use")]
    assert streamed(*outputs)[4:] == [stop(0), *after, *ends("tool_use")]


def test_thinking_after_a_call():
    outputs = [calls(call(0, "{}", name="f")), {"text": "Then"}, piece(reasoning="hm"), {"text": "."}]
    assert [block["type"] for block in whole(*outputs)["content"]] == ["tool_use", "text", "thinking", "text"]


def test_a_late_piece_of_an_earlier_call_is_not_lost():
    outputs = [calls(call(0, '{"a":', name="f")), calls(call(1, "{}", name="g")), calls(call(0, "1}"))]
    assert [block["input"] for block in whole(*outputs)["content"]] == [{"a": 1}, {}]


def test_entries_that_say_nothing():
    quiet = [{"text": ""}, piece(), piece(index=1, text="another choice"), piece(logprobs={"content": []})]
    assert streamed(*quiet, {"text": "a"}, *quiet) == streamed({"text": "a"})
    log = [Entry(1, "claimed", b"{}"), Entry(2, "", b'{"text":"a"}'), Entry(3, "resumed", b"{}")]
    assert [place for place, _ in events_of(log)] == [(0, 0), (2, 0), (2, 1)]


def test_an_empty_message_has_a_block():
    assert streamed() == [BEGINNING, start(0, EMPTY_TEXT), stop(0), *ends("end_turn")]
    assert whole()["content"] == [EMPTY_TEXT]
    assert [block["type"] for block in whole(piece(reasoning="hm"))["content"]] == ["thinking"]


def test_another_models_outputs_count_as_text():
    assert whole({"loss": 1})["content"] == [{"type": "text", "text": '{"loss":1}'}]


def test_a_call_without_arguments_and_an_id():
    made = {"type": "tool_use", "id": f"toolu_{GENERATION.id}_3", "name": "f", "input": {}}
    assert whole(calls({"index": 3, "function": {"name": "f"}}))["content"] == [made]


CALL = calls(call(0, "{}", name="f"))
CUT_CALL = calls(call(0, '{"a":', name="f"))


@pytest.mark.parametrize(
    ("outputs", "end", "reason", "sequence"),
    [
        ([{"text": "a"}], end("stop"), "end_turn", None),
        ([{"text": "a"}], end("stop", 2), "end_turn", None),
        ([{"text": "a"}], end("stop", "\n\n"), "stop_sequence", "\n\n"),
        ([{"text": "a"}], end("stop", ""), "stop_sequence", ""),
        ([{"text": "a"}], end("length"), "max_tokens", None),
        ([CALL], end("tool_calls"), "tool_use", None),
        ([CALL], end("stop"), "tool_use", None),
        ([CALL], end("length"), "max_tokens", None),
        ([CALL], end("stop", "}"), "tool_use", None),
        ([CUT_CALL], end("stop", "}"), "stop_sequence", "}"),
        ([CUT_CALL], end("tool_calls"), "tool_use", None),
        ([CALL, calls(call(1, '{"a"', name="f"))], end("stop", ":"), "stop_sequence", ":"),
    ],
)
def test_why_it_stopped(outputs, end, reason, sequence):
    assert streamed(*outputs, **end)[-2:] == ends(reason, sequence)
    message = whole(*outputs, **end)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_arguments_that_are_not_an_object():
    for arguments in ('{"city": "Par', "[1]", "Paris", "null"):
        content = whole(calls(call(0, arguments, name="f")), finish_reason="length")["content"]
        assert content[0]["input"] == {"INVALID_JSON": arguments}
    deep = '{"a":' + "[" * 100_000
    assert whole(calls(call(0, deep, name="f")))["content"][0]["input"] == {"INVALID_JSON": deep}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, {"input_tokens": 0, "output_tokens": 0}),
        ({**USAGE, "prompt_tokens_details": None}, {"input_tokens": 12, "output_tokens": 5}),
        (
            {
                **USAGE,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            {
                "input_tokens": 4,
                "output_tokens": 5,
                "cache_read_input_tokens": 8,
                "output_tokens_details": {"thinking_tokens": 3},
            },
        ),
    ],
)
def test_usage(usage, expected):
    assert streamed(usage=usage)[-2]["usage"] == expected
    assert whole(usage=usage)["usage"] == expected


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ({"event": "failed", "code": "engine_crashed", "message": "it died"}, ("api_error", "engine_crashed", None)),
        (
            {"event": "failed", "code": "context_length_exceeded", "message": "too long", "param": "messages"},
            ("invalid_request_error", "context_length_exceeded", "messages"),
        ),
        ({"event": "failed", "code": "infer_timeout", "message": "slow"}, ("timeout_error", "infer_timeout", None)),
        ({"event": "cancelled", "reason": "asked"}, ("invalid_request_error", "cancelled", None)),
    ],
)
def test_a_failure_is_an_error_and_nothing_after_it(failure, expected):
    made = streamed({"text": "a"}, **failure)
    kind, code, param = expected
    assert made[:-1] == [BEGINNING, start(0, EMPTY_TEXT), delta(0, "text_delta", "a")]
    assert made[-1]["type"] == "error"
    assert made[-1]["error"]["type"] == kind
    assert made[-1]["error"]["details"] == {"error_code": code, "param": param}
    assert made[-1]["error"]["message"]


class Unauthorized(EverstreamError):
    status = 401


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInput("x", param="top_p"), "invalid_request_error"),
        (Unauthorized("x"), "authentication_error"),
        (UnknownGeneration(), "not_found_error"),
        (RequestConflict("x"), "invalid_request_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (TooManyChecks("x"), "rate_limit_error"),
        (InternalError(), "api_error"),
        (QueueFull("x"), "overloaded_error"),
    ],
)
def test_error_bodies(error, kind):
    details = {"error_code": error.code, "param": error.param}
    body = {"type": "error", "error": {"type": kind, "message": error.message, "details": details}}
    assert json.loads(encode_json(error_body(error))) == body
    assert json.loads(encode_json(error_body(error, "req_1"))) == {**body, "request_id": "req_1"}


@given(OUTPUTS, ENDS)
def test_blocks_follow_one_another(outputs, end):
    made = streamed(*outputs, **end)
    assert [event["type"] for event in made].count("message_start") == 1
    opened, begun = None, 0
    for event in made[1:]:
        if event["type"] == "content_block_start":
            assert (opened, event["index"]) == (None, begun)
            opened, begun = begun, begun + 1
        elif event["type"] == "content_block_stop":
            assert event["index"] == opened
            opened = None
        elif event["type"] == "content_block_delta" and event["delta"]["type"] != "input_json_delta":
            assert event["index"] == opened
    assert made[-1]["type"] == "error" or (opened is None and made[-1]["type"] == "message_stop")
