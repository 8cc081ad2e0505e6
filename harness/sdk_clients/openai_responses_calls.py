"""Calls of the `openai` package for /v1/responses; each returns what the client made of the answer."""

import uuid

from openai_calls import client_of, dumped, dumped_all, refused
from questions import (
    FOLLOW_UP,
    FORCED_TOKENS,
    MAX_TOKENS,
    QUESTION,
    SYSTEM,
    TOO_LONG,
    WEATHER,
    WEATHER_QUESTION,
    WEATHER_TOOL,
    Weather,
    user,
)

GREEDY = {"temperature": 0, "max_output_tokens": MAX_TOKENS}
FORCED = {"temperature": 0, "max_output_tokens": FORCED_TOKENS}
TOOL = {"type": "function", **WEATHER_TOOL["function"]}


def responses_of(url):
    return client_of(url).responses


def response(url, model):
    return dumped(responses_of(url).create(model=model, input=QUESTION, **GREEDY))


def too_few_tokens(url, model):
    return dumped(responses_of(url).create(model=model, input=QUESTION, temperature=0, max_output_tokens=3))


def stream(url, model):
    return dumped_all(responses_of(url).create(model=model, input=[user(QUESTION)], stream=True, **GREEDY))


def stream_helper(url, model):
    with responses_of(url).stream(model=model, input=QUESTION, instructions=SYSTEM, **GREEDY) as stream:
        events = [event.type for event in stream]
        return {"events": events, "answer": stream.get_final_response().model_dump(mode="json")}


def second_turn(url, model):
    """The first answer's items go back as the client has them."""
    asked = [user(QUESTION)]
    first = responses_of(url).create(model=model, input=asked, **GREEDY)
    return dumped(responses_of(url).create(model=model, input=[*asked, *first.output, user(FOLLOW_UP)], **GREEDY))


def tools(url, model):
    """The model calls a tool; the client sends back the output's items as they came, and the tool's result."""
    responses, asked = responses_of(url), [user(WEATHER_QUESTION)]
    options = {"model": model, "tools": [TOOL]}
    first = responses.create(input=asked, tool_choice="required", **options, **FORCED)
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": WEATHER}
    second = responses.create(input=[*asked, *first.output, result], tool_choice="none", **options, **GREEDY)
    return {"first": dumped(first), "second": dumped(second)}


def tools_stream(url, model):
    options = {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"}, "stream": True}
    return dumped_all(responses_of(url).create(model=model, input=WEATHER_QUESTION, **options, **FORCED))


def previous(url, model):
    """A stored answer goes on, is read again, and deleted."""
    responses = responses_of(url)
    first = responses.create(model=model, input=QUESTION, store=True, **GREEDY)
    second = responses.create(model=model, input=FOLLOW_UP, previous_response_id=first.id, **GREEDY)
    read = responses.retrieve(first.id)
    items = dumped_all(responses.input_items.list(first.id))
    responses.delete(first.id)
    gone = refused(lambda: responses.retrieve(first.id))
    return {"first": dumped(first), "second": dumped(second), "read": dumped(read), "items": items, "gone": gone}


def background(url, model):
    """Nobody waits; the stream is read later, from the start and from the middle."""
    responses = responses_of(url)
    started = responses.create(model=model, input=QUESTION, background=True, **GREEDY)
    whole = dumped_all(responses.retrieve(started.id, stream=True))
    rest = dumped_all(responses.retrieve(started.id, stream=True, starting_after=2))
    return {"started": dumped(started), "whole": whole, "rest": rest, "read": dumped(responses.retrieve(started.id))}


def cancel(url, model):
    responses = responses_of(url)
    started = responses.create(model=model, input=QUESTION, background=True, max_output_tokens=1500)
    return {"cancelled": dumped(responses.cancel(started.id)), "read": dumped(responses.retrieve(started.id))}


def parse(url, model):
    answer = responses_of(url).parse(model=model, input=WEATHER_QUESTION, text_format=Weather, **FORCED)
    return {"answer": dumped(answer), "parsed": answer.output_parsed.model_dump()}


def idempotent(url, model):
    """The same request twice, with one key."""
    options = {"extra_headers": {"Idempotency-Key": str(uuid.uuid4())}, "max_output_tokens": MAX_TOKENS}
    return [dumped(responses_of(url).create(model=model, input=QUESTION, temperature=1, **options)) for _ in range(2)]


def errors(url, model):
    responses = client_of(url, max_retries=0).responses
    return {
        "unknown model": refused(lambda: responses.create(model="other", input=QUESTION)),
        "too long": refused(lambda: responses.create(model=model, input=TOO_LONG)),
        "unknown": refused(lambda: responses.retrieve("resp_unknown")),
        "unknown previous": refused(
            lambda: responses.create(model=model, input=QUESTION, previous_response_id="resp_unknown")
        ),
    }
