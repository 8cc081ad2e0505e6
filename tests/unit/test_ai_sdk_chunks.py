"""The chunks of a UI message, from the entries of a generation, and their stream on the wire."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.apis.ai_sdk.encoder import ChunkEncoder
from everstream.errors import QueueFull, ResponseCut
from everstream.log.entries import Entry
from everstream.log.records import Generation
from everstream.web.sse import GREETING, Queued, parse_event_id
from harness.chat_outputs import ENDS, OUTPUTS, USAGE, call, calls, end, entries, piece
from harness.sse_client import Decoder

GENERATION = Generation("0123456789abcdef" * 2, "open", "demo", 0)
BEGINNING = [{"type": "start", "messageId": f"msg_{GENERATION.id}"}, {"type": "start-step"}]


def encoder_of(**options):
    return ChunkEncoder(GENERATION, **{"is_continuation": False, **options})


def wire(log, seen=None, **options):
    """A stream of the whole log, or its rest for a client that has seen this id."""
    encoder = encoder_of(**options)
    if seen is not None:
        encoder.resume(parse_event_id(seen, "Last-Event-ID"))
    return encoder.start(1000, is_new=seen is None) + b"".join(encoder.entry(entry) for entry in log)


def lines_of(stream):
    """Each event's data, as it came."""
    return [event.data for event in Decoder().feed(stream)]


def streamed(*outputs, **end):
    *chunks, last = lines_of(wire(entries(*outputs, **end)))
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def part(kind, part_id, *texts):
    deltas = [{"type": f"{kind}-delta", "id": part_id, "delta": text} for text in texts]
    return [{"type": f"{kind}-start", "id": part_id}, *deltas, {"type": f"{kind}-end", "id": part_id}]


def call_start(call_id, name, *arguments):
    start = {"type": "tool-input-start", "toolCallId": call_id, "toolName": name}
    return [start, *({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": each} for each in arguments)]


def call_end(call_id, name, **arguments):
    return {"type": "tool-input-available", "toolCallId": call_id, "toolName": name, "input": arguments}


def ends(reason, usage=None):
    usage = usage or {"inputTokens": 12, "outputTokens": 5, "totalTokens": 17}
    return [
        {"type": "finish-step"},
        {"type": "finish", "finishReason": reason, "messageMetadata": {"usage": usage}},
    ]


def test_text():
    made = streamed({"text": "The"}, {"text": " end"})
    assert made == [*BEGINNING, *part("text", "0", "The", " end"), *ends("stop")]


def test_reasoning_text_and_calls_in_turn():
    outputs = [
        piece(reasoning="Which"),
        piece(reasoning=" city?", text="Let me look."),
        calls(call(0, name="weather")),
        calls(call(0, '{"city":'), call(0, '"Paris"}'), call(1, "{}", name="time")),
    ]
    assert streamed(*outputs, finish_reason="tool_calls") == [
        *BEGINNING,
        *part("reasoning", "0", "Which", " city?"),
        *part("text", "1", "Let me look."),
        *call_start("call_0", "weather", '{"city":', '"Paris"}'),
        *call_start("call_1", "time", "{}"),
        call_end("call_0", "weather", city="Paris"),
        call_end("call_1", "time"),
        *ends("tool-calls"),
    ]


def test_text_amid_a_call_is_a_part_of_its_own():
    """A parser of vLLM's may send the rest of a call's arguments after text."""
    outputs = [{"text": "a"}, calls(call(0, '{"a":', name="f")), {"text": "b"}, calls(call(0, "1}"))]
    assert streamed(*outputs)[2:] == [
        *part("text", "0", "a"),
        *call_start("call_0", "f", '{"a":'),
        *part("text", "1", "b")[:2],
        *call_start("call_0", "f", "1}")[1:],
        {"type": "text-end", "id": "1"},
        call_end("call_0", "f", a=1),
        *ends("tool-calls"),
    ]


def test_a_call_without_arguments_and_an_id():
    call_id = f"call_{GENERATION.id}_3"
    made = streamed(calls({"index": 3, "function": {"name": "f"}}))
    assert made[2:4] == [*call_start(call_id, "f"), call_end(call_id, "f")]


@pytest.mark.parametrize("arguments", ['{"city": "Par', "[1]", "Paris", "null", '{"a":' + "[" * 100_000])
def test_arguments_that_are_not_an_object(arguments):
    made = streamed(calls(call(0, arguments, name="f")), finish_reason="length")
    assert made[4] == {
        "type": "tool-input-error",
        "toolCallId": "call_0",
        "toolName": "f",
        "input": arguments,
        "errorText": "the arguments are not a JSON object",
    }
    assert made[5:] == ends("length")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_arguments_in_several_lines(line_end):
    """The text stays as the model wrote it; the object must fit into one line of data."""
    arguments = line_end.join(["{", ' "city": "Paris\\n"', "}", ""])
    made = streamed(calls(call(0, arguments, name="f")))
    assert made[2:5] == [*call_start("call_0", "f", arguments), call_end("call_0", "f", city="Paris\n")]


def test_entries_that_say_nothing():
    quiet = [{"text": ""}, piece(), piece(index=1, text="another choice"), piece(logprobs={"content": []})]
    assert streamed(*quiet, {"text": "a"}, *quiet) == streamed({"text": "a"})
    assert streamed() == [*BEGINNING, *ends("stop")]
    log = [Entry(1, "claimed", b"{}"), Entry(2, "", b'{"text":"a"}'), Entry(3, "resumed", b"{}")]
    assert len(lines_of(wire(log))) == 4


def test_another_models_outputs_count_as_text():
    assert streamed({"loss": 1})[3]["delta"] == '{"loss":1}'


@pytest.mark.parametrize(
    ("outputs", "end", "reason"),
    [
        ([{"text": "a"}], end("stop", "\n\n"), "stop"),
        ([{"text": "a"}], end("length"), "length"),
        ([{"text": "a"}], end("content_filter"), "content-filter"),
        ([{"text": "a"}], end("repetition"), "other"),
        ([calls(call(0, "{}", name="f"))], end("stop"), "tool-calls"),
        ([calls(call(0, "{}", name="f"))], end("tool_calls"), "tool-calls"),
        ([calls(call(0, "{}", name="f"))], end("length"), "length"),
    ],
)
def test_why_it_finished(outputs, end, reason):
    assert streamed(*outputs, **end)[-1]["finishReason"] == reason


def test_usage():
    details = {"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 3}}
    assert streamed(usage=USAGE | details)[-2:] == ends(
        "stop",
        {
            "inputTokens": 12,
            "outputTokens": 5,
            "totalTokens": 17,
            "inputTokenDetails": {"noCacheTokens": 4, "cacheReadTokens": 8},
            "outputTokenDetails": {"textTokens": 2, "reasoningTokens": 3},
        },
    )
    assert streamed(usage=None)[-1] == {"type": "finish", "finishReason": "stop"}


def test_a_failure_is_an_error_and_nothing_after_it():
    failed = entries({"text": "a"}, event="failed", code="engine_crashed", message="it died")
    *made, last = map(json.loads, lines_of(wire(failed)))
    assert made == [*BEGINNING, *part("text", "0", "a")[:2]]
    assert last == {"type": "error", "errorText": "it died"}


def test_a_stopped_message_is_not_a_finished_one():
    *made, abort, error = map(json.loads, lines_of(wire(entries({"text": "a"}, event="cancelled", reason="requested"))))
    assert made == [*BEGINNING, *part("text", "0", "a")[:2]]
    assert (abort["type"], error["type"], abort["reason"]) == ("abort", "error", error["errorText"])


def test_a_continuation_does_not_name_its_message():
    assert lines_of(wire([], is_continuation=True))[0] == '{"type":"start"}'


@given(OUTPUTS, ENDS, st.booleans())
def test_for_every_k_the_first_k_chunks_and_the_rest_are_the_whole(outputs, end, is_continuation):
    log = entries(*outputs, **end)
    whole = lines_of(wire(log, is_continuation=is_continuation))
    chunks = [line for line in whole if line != "[DONE]"]
    for k in range(len(chunks) + 1):
        assert whole[:k] + lines_of(wire(log, is_continuation=is_continuation, start_index=k)) == whole


@given(OUTPUTS, ENDS)
def test_after_every_event_a_client_gets_exactly_the_rest(outputs, end):
    log = entries(*outputs, **end)
    uncut = Decoder().feed(wire(log, has_ids=True))
    assert [event.data for event in uncut] == lines_of(wire(log))
    for cut, last in enumerate(uncut, 1):
        rest = wire(log, seen=last.id, has_ids=True)
        assert rest.startswith(GREETING)
        assert uncut[:cut] + Decoder().feed(rest) == uncut


@given(OUTPUTS, ENDS)
def test_parts_begin_before_their_deltas_and_end_once(outputs, end):
    """What the AI SDK throws an error for otherwise."""
    begun, ended = set(), set()
    for line in lines_of(wire(entries(*outputs, **end))):
        chunk = {} if line == "[DONE]" else json.loads(line)
        kind, _, what = chunk.get("type", "").rpartition("-")
        part = (kind, chunk.get("id", chunk.get("toolCallId")))
        if kind in ("text", "reasoning", "tool-input"):
            assert (part in begun) == (what != "start") and part not in ended
            begun.add(part)
            ended |= {part} if what in ("end", "available", "error") else set()
    if "event" not in end:
        assert begun == ended


@given(OUTPUTS, ENDS)
def test_only_a_complete_message_looks_complete(outputs, end):
    lines = lines_of(wire(entries(*outputs, **end)))
    is_done = "event" not in end
    assert (lines[-1] == "[DONE]") == any('"type":"finish"' in line for line in lines) == is_done
    assert ('"type":"error"' in lines[-1]) != is_done


def test_signs_of_life_are_no_chunks():
    for has_ids in (False, True):
        encoder, decoder = encoder_of(has_ids=has_ids), Decoder()
        assert decoder.feed(encoder.heartbeat + encoder.queued(Queued(3, 3))) == []
        assert decoder.comments == (["heartbeat", "queued 3"] if has_ids else [])


def test_an_end_that_is_not_in_the_log():
    for has_ids, event_id in ((True, f"{GENERATION.id}.expired"), (False, "")):
        (lost,) = Decoder().feed(encoder_of(has_ids=has_ids).lost(QueueFull("too many")))
        assert (lost.json, lost.id) == ({"type": "error", "errorText": "too many"}, event_id)


def test_a_worker_that_stops():
    """An end of the stream would look like the end of the message."""
    assert Decoder().feed(encoder_of(has_ids=True).reconnect(1000)) == []
    with pytest.raises(ResponseCut):
        encoder_of().reconnect(1000)


def test_a_token_is_an_entry():
    one, other = encoder_of(has_ids=True), encoder_of(has_ids=True)
    for n in (1, 2):
        assert one.token(n, b'{"text":"a"}') == other.entry(Entry(n, "", b'{"text":"a"}'))
