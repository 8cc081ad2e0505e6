"""Generations of a chat model, as the log has them: for tests of the APIs' wire formats.

`OUTPUTS` and `ENDS` are hypothesis strategies for the arguments of `entries`.
"""

from hypothesis import strategies as st

from everstream.log.entries import Entry, encode_json

USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}


def entries(*outputs, event="done", **end):
    if event == "done":
        end = {"finish_reason": "stop", "usage": USAGE, **end}
    tokens = [Entry(n, "", encode_json(output)) for n, output in enumerate(outputs, 1)]
    return [*tokens, Entry(len(tokens) + 1, event, encode_json(end))]


def piece(**choice):
    return {"text": choice.get("text", ""), "choices": [choice]}


def call(index=0, arguments="", name=None, call_id=None):
    start = {"id": call_id or f"call_{index}", "type": "function"} if name else {}
    return {"index": index, "function": {"name": name, "arguments": arguments}, **start}


def calls(*pieces):
    return piece(tool_calls=list(pieces))


REASONING_TEXT_AND_CALL = [
    piece(reasoning="Which"),
    piece(reasoning=" city?"),
    piece(text="Let me"),
    piece(text=" look."),
    calls(call(0, '{"city": ', name="weather")),
    calls(call(0, '"Paris"}')),
]
REASONING_TEXT_AND_CALLS = [
    *REASONING_TEXT_AND_CALL[:-1],
    calls(call(0, '"Paris"}'), call(1, '{"city": "Rome"}', name="weather")),
]


def end(finish_reason, stop_reason=None):
    choice = {"index": 0, "finish_reason": finish_reason, "stop_reason": stop_reason}
    return {"finish_reason": finish_reason, "choices": [choice]}


def _first(choices):
    """The text of the first choice."""
    return "".join(choice.get("text", "") for choice in choices if choice.get("index", 0) == 0)


_text = st.one_of(st.sampled_from(["", '"choices":']), st.text(max_size=5))
_call = st.builds(call, st.integers(0, 2), st.sampled_from(["", "{", '{"a":1', "}"]), st.sampled_from([None, "f"]))
_choice = st.fixed_dictionaries(
    {}, optional={"index": st.integers(0, 1), "text": _text, "reasoning": _text, "tool_calls": st.lists(_call)}
)
_output = st.one_of(
    st.builds(lambda t: {"text": t}, _text),
    st.builds(lambda choices: {"text": _first(choices), "choices": choices}, st.lists(_choice, max_size=3)),
    st.just({"loss": 1}),
)
ENDS = st.one_of(
    st.builds(end, st.sampled_from(["stop", "length", "tool_calls"]), st.sampled_from([None, 2, "}", "x"])),
    st.just({"event": "cancelled", "reason": "asked"}),
    st.just({"event": "failed", "code": "engine_crashed", "message": "it died"}),
)
OUTPUTS = st.lists(_output)
