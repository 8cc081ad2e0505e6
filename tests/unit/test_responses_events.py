"""The events of a response: against OpenAI's own types, its client's own accumulator, and every possible cut."""

import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from everstream.apis.openai.responses.events import ResponseEvents
from everstream.apis.openai.responses.requests import parse
from everstream.apis.openai.responses.response import echo
from everstream.contract.chat_outputs import Choice, ChoiceEnd, Ending, Function, ToolCall
from everstream.errors import UnknownGeneration
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from harness.openai_types import validated

ID = "0123456789abcdef" * 2
GENERATION = Generation(ID, "open", "a-model", 0, 1_700_000_000)
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
BODY = {
    "input": "Hi",
    "instructions": "Be terse.",
    "tools": [TOOL | {"description": "of a place", "strict": True}, {"type": "function", "name": "now"}],
    "tool_choice": {"type": "function", "name": "now"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"a": "b"},
    "temperature": 1,
    "top_p": 0.5,
    "max_output_tokens": 30,
    "user": "me",
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def machine(**body):
    request = parse({"input": "Hi"} | body).request
    return ResponseEvents(GENERATION, echo(request), is_background=request.background)


DONE = ("done", Ending("stop", USAGE))


def entries_of(outputs, end=DONE):
    """`outputs`: model outputs, or names of other entries."""
    named = [("", each) if isinstance(each, dict) else (each, {}) for each in outputs]
    return [Entry(n, name, encode_json(data)) for n, (name, data) in enumerate([*named, end], 1)]


def events_of(entries, **body):
    found = machine(**body)
    events = [*found.opening(), *(event for entry in entries for event in found.entry(entry))]
    return [(event.name, encode_json(event)) for event in events]


def decoded(events):
    return [msgspec.json.decode(data) for _, data in events]


def types_of(events):
    return [name.removeprefix("response.") for name, _ in events]


def call(index=0, arguments="", **first):
    name = first.pop("name", None)
    return {"text": "", "choices": [Choice(tool_calls=[ToolCall(index, Function(name, arguments), **first)])]}


def reasoning(text):
    return {"text": "", "choices": [Choice(reasoning=text)]}


def logprob(token):
    of_token = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return of_token | {"top_logprobs": [of_token, {"token": "?", "logprob": -1.5, "bytes": None}]}


def test_text_has_openais_events():
    events = events_of(entries_of([{"text": "Why"}, {"text": " not"}]))
    assert types_of(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    last = decoded(events)[-1]["response"]
    assert last["output"][0]["content"][0]["text"] == "Why not"
    assert (last["id"], last["status"], last["error"]) == (f"resp_{ID}", "completed", None)
    assert last["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


def test_usage_may_be_unknown():
    assert decoded(events_of(entries_of([{"text": "a"}], ("done", Ending("stop")))))[-1]["response"]["usage"] is None


def test_details_of_usage_are_kept():
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
    last = decoded(events_of(entries_of([], ("done", Ending("stop", USAGE | details)))))[-1]["response"]
    assert last["usage"]["input_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 0}
    assert last["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}


def test_reasoning_text_and_calls_are_items_one_after_another():
    outputs = [
        reasoning("H"),
        reasoning("m"),
        {"text": "Let me see."},
        call(name="weather", id="call_1", arguments='{"a'),
        call(0, '":1}'),
    ]
    outputs += [call(1, "{}", name="now", id="call_2")]
    events = events_of(entries_of(outputs, ("done", Ending("tool_calls", USAGE))))
    assert types_of(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    thought, said, first, second = decoded(events)[-1]["response"]["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert said["content"][0]["text"] == "Let me see."
    assert (first["name"], first["call_id"], first["arguments"]) == ("weather", "call_1", '{"a":1}')
    assert (second["name"], second["call_id"], second["arguments"]) == ("now", "call_2", "{}")
    assert [item["id"] for item in (thought, said, first, second)] == [
        f"rs_{ID}_0",
        f"msg_{ID}_1",
        f"fc_{ID}_2",
        f"fc_{ID}_3",
    ]


def test_call_without_an_id_gets_one():
    (last,) = decoded(events_of(entries_of([call(name="now")])))[-1]["response"]["output"]
    assert (last["call_id"], last["arguments"], last["status"]) == (f"fc_{ID}_0", "", "completed")


def test_text_between_the_pieces_of_a_call_does_not_end_it():
    outputs = [call(name="now", arguments="{"), {"text": "\n"}, call(arguments="}")]
    calls, text = decoded(events_of(entries_of(outputs)))[-1]["response"]["output"]
    assert (calls["arguments"], calls["status"], text["content"][0]["text"]) == ("{}", "completed", "\n")


def test_call_that_goes_on_after_the_next_is_an_error():
    found = machine()
    for output in (call(name="a"), call(1, name="b")):
        found.entry(Entry(1, "", encode_json(output)))
    with pytest.raises(ValueError, match="goes on after its end"):
        found.entry(Entry(3, "", encode_json(call(0, "{}"))))


def test_only_the_first_choice_counts():
    output = {"text": "a", "choices": [Choice(1, "b"), Choice(0, "a")]}
    ends = Ending("length", USAGE, [ChoiceEnd(1, "length"), ChoiceEnd(0, "stop")])
    last = decoded(events_of(entries_of([output], ("done", ends))))[-1]["response"]
    assert (last["status"], last["output"][0]["content"][0]["text"]) == ("completed", "a")


def test_log_probabilities_are_in_deltas_and_in_the_message():
    outputs = [{"text": "Hi", "choices": [Choice(text="Hi", logprobs={"content": [logprob("Hi")]})]}]
    outputs += [{"text": "", "choices": [Choice(logprobs={"content": [logprob("<eos>")]})]}]
    events = decoded(events_of(entries_of(outputs)))
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["delta"] for event in deltas] == ["Hi", ""]
    top = [{"token": "Hi", "logprob": -0.5}, {"token": "?", "logprob": -1.5}]
    assert deltas[0]["logprobs"] == [{"token": "Hi", "logprob": -0.5, "top_logprobs": top}]
    done = next(event for event in events if event["type"] == "response.output_text.done")
    assert done["logprobs"] == [shown for event in deltas for shown in event["logprobs"]]
    kept = events[-1]["response"]["output"][0]["content"][0]["logprobs"]
    assert [each["token"] for each in kept] == ["Hi", "<eos>"]
    assert kept[0]["top_logprobs"][1] == {"token": "?", "logprob": -1.5, "bytes": [63]}


def test_log_probabilities_of_reasoning_are_not_those_of_the_message():
    thought = {"text": "", "choices": [Choice(reasoning="Hm", logprobs={"content": [logprob("Hm")]})]}
    message = decoded(events_of(entries_of([{"text": "Hi"}, thought])))[-1]["response"]["output"][0]
    assert message["content"][0]["logprobs"] == []


@pytest.mark.parametrize(
    ("finish_reason", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("repetition", "incomplete", None),
    ],
)
def test_an_end_before_the_end_is_incomplete(finish_reason, status, reason):
    events = events_of(entries_of([reasoning("Hm"), {"text": "Why"}], ("done", Ending(finish_reason, USAGE))))
    last = decoded(events)[-1]
    assert last["type"] == f"response.{status}"
    response = last["response"]
    assert (response["status"], [item["status"] for item in response["output"]]) == (status, ["completed", status])
    assert (response["incomplete_details"] or {}).get("reason") == reason
    assert (response["incomplete_details"] is None) == (status == "completed")


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (("failed", {"code": "model_error", "message": "oops"}), ("server_error", "model_error", "oops", None)),
        (
            ("failed", {"code": "context_length_exceeded", "message": "too long", "param": "input"}),
            ("invalid_prompt", "context_length_exceeded", "too long", "input"),
        ),
        (("cancelled", {"reason": "requested"}), None),
    ],
)
def test_what_is_cut_never_looks_finished(end, error):
    events = decoded(events_of(entries_of([reasoning("Hm"), {"text": "Why"}], end)))
    assert [event["type"] for event in events[-2:]] == ["response.output_text.delta", "response.failed"]
    response = events[-1]["response"]
    assert (response["status"], response["usage"]) == (end[0], None)
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    found = response["error"]
    assert (found and (found["code"], found["type"], found["message"], found["param"])) == error


def test_background_response_is_queued_until_its_first_output():
    entries = entries_of([{"text": "a"}])
    events = events_of(entries, background=True)
    assert types_of(events)[:4] == ["created", "queued", "in_progress", "output_item.added"]
    statuses = [event["response"]["status"] for event in decoded(events) if "response" in event]
    assert statuses == ["queued", "queued", "in_progress", "completed"]
    assert types_of(events_of(entries[1:], background=True)) == ["created", "queued", "completed"]


@pytest.mark.parametrize("background", [False, True])
def test_heartbeat_repeats_the_last_number(background):
    found = machine(background=background)
    opening = found.opening()
    assert encode_json(found.heartbeat()) == encode_json(opening[-1])
    events = found.entry(Entry(1, "", b'{"text":"a"}'))
    beat = found.heartbeat()
    assert (beat.name, beat.sequence_number) == ("response.in_progress", events[-1].sequence_number)
    assert beat.response["output"] == []
    validated(ResponseStreamEvent, encode_json(beat))
    (delta,) = found.entry(Entry(2, "", b'{"text":"b"}'))
    assert delta.sequence_number == beat.sequence_number + 1


def test_lost_stream_ends_with_an_error_that_takes_no_number():
    unknown = machine().lost(UnknownGeneration())
    assert (unknown.name, unknown.code, unknown.sequence_number) == ("error", "generation_expired", 0)
    validated(ResponseStreamEvent, encode_json(unknown))
    found = machine()
    assert found.lost(UnknownGeneration()).sequence_number == found.opening()[-1].sequence_number - 1


def test_request_is_repeated_in_openais_form():
    for body in (BODY, {"tools": [], "text": {}, "metadata": {}}):
        encoded = encode_json(machine(**body).response())
        response = validated(Response, encoded)
        assert response.tool_choice == ("auto" if "tool_choice" not in body else response.tool_choice)
        for name in ("error", "incomplete_details", "usage"):
            assert msgspec.json.decode(encoded)[name] is None
    assert response.output == []


# Any pieces of an answer, as vLLM's parsers send them: the calls one after another.

texts = st.text(min_size=1, max_size=5)
logprobs = st.none() | st.builds(
    lambda tokens: {"content": [logprob(token) for token in tokens]}, st.lists(texts, max_size=2)
)
plain = st.builds(lambda text: {"text": text}, st.text(max_size=5))
rich = st.builds(
    lambda text, thought, found: {
        "text": text,
        "choices": [Choice(0, text, thought, logprobs=found), Choice(1, "other")],
    },
    st.text(max_size=5),
    st.text(max_size=5),
    logprobs,
)
pieces_of_call = st.lists(st.text(max_size=5), min_size=1, max_size=3)
endings = st.one_of(
    st.builds(lambda reason: ("done", Ending(reason, USAGE)), st.sampled_from(["stop", "tool_calls", "length"])),
    st.just(("failed", {"code": "engine_crashed", "message": "three times"})),
    st.just(("cancelled", {"reason": "requested"})),
)


@st.composite
def answers(draw):
    """Entries. The pieces of calls lie between others, but in the order of the calls."""
    outputs = draw(st.lists(st.one_of(plain, rich, st.just("resumed"), st.just("call")), max_size=8))
    found, index = [], 0
    for each in outputs:
        if each != "call":
            found.append(each)
            continue
        first, *rest = draw(pieces_of_call)
        found += [call(index, first, name="now", id=f"call_{index}"), *(call(index, piece) for piece in rest)]
        index += 1
    return entries_of(found, draw(endings))


@settings(max_examples=60)
@given(answers(), st.booleans())
def test_every_event_is_of_openais_types_and_adds_up_in_its_client(entries, background):
    events = events_of(entries, background=background, **BODY)
    state = ResponseStreamState(input_tools=openai.omit, text_format=openai.omit)
    for number, (name, encoded) in enumerate(events):
        event = validated(ResponseStreamEvent, encoded)
        assert (event.type, event.sequence_number) == (name, number)
        state.handle_event(event)
    assert (state._completed_response is not None) == (name == "response.completed")


@settings(max_examples=60)
@given(answers())
def test_deltas_add_up_to_the_output(entries):
    events = decoded(events_of(entries))
    joined = {}
    for event in events:
        if event["type"].endswith(".delta"):
            joined.setdefault(event["item_id"], []).append(event["delta"])
        elif event["type"] in ("response.output_text.done", "response.reasoning_text.done"):
            assert event["text"] == "".join(joined[event["item_id"]])
        elif event["type"] == "response.function_call_arguments.done":
            assert event["arguments"] == "".join(joined.get(event["item_id"], []))
    output = events[-1]["response"]["output"]
    said = {item["id"]: item["arguments"] if "arguments" in item else item["content"][0]["text"] for item in output}
    assert said == {key: "".join(joined.get(key, [])) for key in said}
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    assert added == list(range(len(output)))
    if events[-1]["type"] != "response.failed":
        done = {
            event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"
        }
        assert [done[index] for index in added] == output


@settings(max_examples=60)
@given(answers(), st.booleans(), st.data())
def test_cut_after_any_event_and_resumed_is_the_whole(entries, background, data):
    """Another process makes the events again, and leaves out those that were seen. Heartbeats change nothing."""
    whole = events_of(entries, background=background)
    for seen in range(len(whole)):
        found = machine(background=background)
        events = found.opening()
        for entry in entries:
            if data.draw(st.booleans()):
                found.heartbeat()
                found.response()
            events += found.entry(entry)
        rest = [(event.name, encode_json(event)) for event in events if event.sequence_number > seen]
        assert whole[: seen + 1] + rest == whole


@given(answers())
def test_the_whole_response_is_that_of_the_last_event(entries):
    found = machine()
    for entry in entries:
        found.entry(entry)
    assert encode_json(found.response()) == encode_json(
        msgspec.json.decode(events_of(entries)[-1][1], type=dict[str, msgspec.Raw])["response"]
    )
