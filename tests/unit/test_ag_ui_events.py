"""The events of an AG-UI run, from the entries of a generation, and their stream on the wire."""

import json

import pytest
from hypothesis import given

from everstream.apis.ag_ui.encoder import RunEncoder
from everstream.apis.ag_ui.run_events import Run
from everstream.errors import QueueFull, ResponseCut
from everstream.log.entries import Entry
from everstream.web.sse import GREETING, Queued, parse_event_id
from harness.chat_outputs import ENDS, OUTPUTS, USAGE, call, calls, end, entries, piece
from harness.sse_client import Decoder

GENERATION = "0123456789abcdef" * 2
RUN = Run("a-thread", "a-run")
NAMES = {"threadId": "a-thread", "runId": "a-run"}
STARTED = {"type": "RUN_STARTED", **NAMES}


def encoder_of(seen=None):
    encoder = RunEncoder(GENERATION, RUN)
    if seen is not None:
        encoder.resume(parse_event_id(seen, "Last-Event-ID"))
    return encoder


def wire(log, seen=None):
    """A stream of the whole log, or its rest for a client that has seen this id."""
    encoder = encoder_of(seen)
    return encoder.start(1000, is_new=seen is None) + b"".join(encoder.entry(entry) for entry in log)


def events_of(stream):
    return [json.loads(event.data) for event in Decoder().feed(stream)]


def streamed(*outputs, **end):
    return events_of(wire(entries(*outputs, **end)))


def message_id(number):
    return {"messageId": f"msg_{GENERATION}_{number}"}


def said(number, *texts):
    each = message_id(number)
    deltas = [{"type": "TEXT_MESSAGE_CONTENT", **each, "delta": text} for text in texts]
    return [{"type": "TEXT_MESSAGE_START", **each, "role": "assistant"}, *deltas, {"type": "TEXT_MESSAGE_END", **each}]


def thought(number, *texts):
    each = message_id(number)
    return [
        {"type": "REASONING_START", **each},
        {"type": "REASONING_MESSAGE_START", **each, "role": "reasoning"},
        *({"type": "REASONING_MESSAGE_CONTENT", **each, "delta": text} for text in texts),
        {"type": "REASONING_MESSAGE_END", **each},
        {"type": "REASONING_END", **each},
    ]


def call_start(call_id, name, parent):
    of = message_id(parent)["messageId"]
    return {"type": "TOOL_CALL_START", "toolCallId": call_id, "toolCallName": name, "parentMessageId": of}


def call_args(call_id, delta):
    return {"type": "TOOL_CALL_ARGS", "toolCallId": call_id, "delta": delta}


def call_end(call_id):
    return {"type": "TOOL_CALL_END", "toolCallId": call_id}


def call_input(call_id, name, **arguments):
    value = {"toolCallId": call_id, "toolName": name, "input": arguments}
    return {"type": "CUSTOM", "name": "tool-input-available", "value": value}


def finished(*pending, reason="stop", usage=None, outcome="success"):
    usage = usage or {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}
    calls = {"pendingToolCallIds": list(pending)} if pending else {}
    why = {"metadata": {"tanstack": {"finishReason": reason}}} if reason else {}
    return {"type": "RUN_FINISHED", **NAMES, "outcome": {"type": outcome, **calls}, "usage": [usage], **why}


def test_text():
    assert streamed({"text": "The"}, {"text": " end"}) == [STARTED, *said(1, "The", " end"), finished()]


def test_reasoning_text_and_calls_in_turn():
    outputs = [
        piece(reasoning="Which"),
        piece(reasoning=" city?", text="Let me look."),
        calls(call(0, name="weather")),
        calls(call(0, '{"city":'), call(0, '"Paris"}'), call(1, "{}", name="time")),
    ]
    assert streamed(*outputs, finish_reason="tool_calls") == [
        STARTED,
        *thought(1, "Which", " city?"),
        *said(2, "Let me look."),
        call_start("call_0", "weather", 2),
        call_args("call_0", '{"city":'),
        call_args("call_0", '"Paris"}'),
        call_start("call_1", "time", 2),
        call_args("call_1", "{}"),
        call_end("call_0"),
        call_end("call_1"),
        call_input("call_0", "weather", city="Paris"),
        call_input("call_1", "time"),
        finished("call_0", "call_1", reason=""),
    ]


def test_calls_without_text_belong_to_one_message():
    made = streamed(calls(call(0, "{}", name="f")), calls(call(1, "{}", name="g")))
    assert [each["parentMessageId"] for each in made if each["type"] == "TOOL_CALL_START"] == [
        message_id(1)["messageId"]
    ] * 2


def test_text_amid_a_call_is_a_message_of_its_own():
    """A parser of vLLM's may send the rest of a call's arguments after text."""
    outputs = [{"text": "a"}, calls(call(0, '{"a":', name="f")), {"text": "b"}, calls(call(0, "1}"))]
    assert streamed(*outputs)[4:-3] == [
        call_start("call_0", "f", 1),
        call_args("call_0", '{"a":'),
        *said(2, "b")[:2],
        call_args("call_0", "1}"),
        said(2, "b")[2],
    ]


@pytest.mark.parametrize("arguments", ['{"city": "Par', "[1]", "Paris", "null", '{"a":' + "[" * 100_000])
def test_a_call_that_is_not_whole_is_not_executed(arguments):
    """Without a result, AG-UI's client would take it for a pending one, and TanStack AI's would wait for its result."""
    made = streamed(calls(call(0, arguments, name="f"), call(1, "{}", name="g")), finish_reason="length")
    assert made[-5:] == [
        call_end("call_0"),
        call_end("call_1"),
        {
            "type": "TOOL_CALL_RESULT",
            "messageId": "result_call_0",
            "toolCallId": "call_0",
            "content": "Error: the arguments are not a JSON object",
            "role": "tool",
        },
        call_input("call_1", "g"),
        finished("call_1", reason="length"),
    ]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_arguments_in_several_lines(line_end):
    """The text stays as the model wrote it; the object must fit into one line of data."""
    arguments = line_end.join(["{", ' "city": "Paris\\n"', "}", ""])
    made = streamed(calls(call(0, arguments, name="f")))
    assert made[2:5] == [call_args("call_0", arguments), call_end("call_0"), call_input("call_0", "f", city="Paris\n")]


def test_entries_that_say_nothing():
    quiet = [{"text": ""}, piece(), piece(index=1, text="another choice"), piece(logprobs={"content": []})]
    assert streamed(*quiet, {"text": "a"}, *quiet) == streamed({"text": "a"})
    assert streamed() == [STARTED, finished()]
    log = [Entry(1, "claimed", b"{}"), Entry(2, "", b'{"text":"a"}'), Entry(3, "resumed", b"{}")]
    assert len(events_of(wire(log))) == 3


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_why_it_finished(reason):
    assert streamed({"text": "a"}, **end(reason))[-1] == finished(reason=reason)
    called = streamed(calls(call(0, "{}", name="f")), **end(reason))[-1]
    assert called == finished("call_0", reason=reason)


def test_tanstack_is_not_told_to_wait_for_a_server_that_executes_calls():
    assert streamed({"text": "a"}, **end("tool_calls"))[-1] == finished(reason="")


@given(OUTPUTS, ENDS)
def test_a_client_that_has_seen_all_gets_the_end_again_as_news(outputs, end):
    log = entries(*outputs, **end)
    last = Decoder().feed(wire(log))[-1]
    assert wire(log, seen=last.id) == GREETING + f"data: {last.data}\n\n".encode()


def test_usage():
    details = {"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 3}}
    known = {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17, "reasoningTokens": 3, "cachedInputTokens": 8}
    assert streamed(usage=USAGE | details)[-1] == finished(usage=known)
    assert "usage" not in streamed(usage=None)[-1]


def test_a_failure_is_an_error_and_nothing_after_it():
    failed = entries({"text": "a"}, event="failed", code="engine_crashed", message="it died")
    *made, last = events_of(wire(failed))
    assert made == [STARTED, *said(1, "a")[:2]]
    assert last == {"type": "RUN_ERROR", "message": "it died", "code": "engine_crashed"}


def test_a_stopped_run_is_a_cancelled_one():
    """AG-UI's clients refuse the end of a run amid a message."""
    made = events_of(wire(entries({"text": "a"}, calls(call(0, "{", name="f")), event="cancelled", reason="requested")))
    assert made[:4] == [STARTED, *said(1, "a")]
    assert made[-2:] == [call_end("call_0"), {"type": "RUN_FINISHED", **NAMES, "outcome": {"type": "cancelled"}}]


@given(OUTPUTS, ENDS)
def test_after_every_event_a_client_gets_exactly_the_rest(outputs, end):
    log = entries(*outputs, **end)
    uncut = Decoder().feed(wire(log))
    for cut, last in enumerate(uncut[:-1], 1):
        rest = wire(log, seen=last.id)
        assert rest.startswith(GREETING)
        assert uncut[:cut] + Decoder().feed(rest) == uncut


@given(OUTPUTS, ENDS)
def test_the_id_comes_before_the_data(outputs, end):
    """TanStack AI's client would take it for that of the next event."""
    for event in wire(entries(*outputs, **end)).removeprefix(GREETING).split(b"\n\n")[:-1]:
        assert [line.partition(b": ")[0] for line in event.split(b"\n")] == [b"id", b"data"]


@given(OUTPUTS, ENDS)
def test_what_begins_ends_once_before_the_run_does(outputs, end):
    """What AG-UI's clients throw an error for otherwise."""
    open_now = set()
    *made, last = events_of(wire(entries(*outputs, **end)))
    for event in made:
        what, _, step = event["type"].rpartition("_")
        key = (what, event.get("messageId", event.get("toolCallId")))
        if step == "START":
            assert key not in open_now
            open_now.add(key)
        elif step in ("CONTENT", "ARGS"):
            assert key in open_now and event["delta"]
        elif step == "END":
            open_now.remove(key)
    assert last["type"] == "RUN_ERROR" or not open_now


def test_what_is_no_event():
    encoder = encoder_of()
    assert (encoder.heartbeat, encoder.queued(Queued(3, 7))) == (b": heartbeat\n", b": queued 3\n")
    lost = encoder.lost(QueueFull("too many"))
    assert (
        lost
        == (
            f'id: {GENERATION}.expired\ndata: {{"type":"RUN_ERROR","message":"too many","code":"queue_full"}}\n\n'
        ).encode()
    )
    with pytest.raises(ResponseCut):
        encoder.reconnect(1000)
