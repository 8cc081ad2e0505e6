"""Calls of the `openai` package for tools and structured output in chats."""

from openai_calls import completions_of, dumped, dumped_all
from questions import (
    FORCED,
    GREEDY,
    TIME_TOOL,
    WEATHER,
    WEATHER_PARAMETERS,
    WEATHER_QUESTION,
    WEATHER_TOOL,
    Weather,
    messages,
    user,
)

NAMED = {"type": "function", "function": {"name": "get_weather"}}


def tool_round(url, model, choice):
    """The model calls a tool, and gets its result."""
    asked = [user(WEATHER_QUESTION)]
    tools = [WEATHER_TOOL] if choice == "required" else [WEATHER_TOOL, TIME_TOOL]
    first = completions_of(url).create(model=model, messages=asked, tools=tools, tool_choice=choice, **FORCED)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": WEATHER}
    history = [*asked, message.model_dump(), result]
    second = completions_of(url).create(model=model, messages=history, tools=tools, tool_choice="none", **GREEDY)
    return {"first": dumped(first), "second": dumped(second)}


def tools_named(url, model):
    return tool_round(url, model, NAMED)


def tools_required(url, model):
    return tool_round(url, model, "required")


def tools_auto(url, model):
    tools = [WEATHER_TOOL, TIME_TOOL]
    return dumped(completions_of(url).create(model=model, messages=messages(), tools=tools, **GREEDY))


def tools_stream(url, model):
    options = {"tools": [WEATHER_TOOL, TIME_TOOL], "tool_choice": NAMED, "stream": True}
    return dumped_all(completions_of(url).create(model=model, messages=[user(WEATHER_QUESTION)], **FORCED, **options))


def tools_stream_helper(url, model):
    options = {"tools": [WEATHER_TOOL], "tool_choice": "required"}
    asked = [user(WEATHER_QUESTION)]
    with completions_of(url).stream(model=model, messages=asked, **FORCED, **options) as stream:
        events = [event.type for event in stream]
        return {"events": events, "answer": stream.get_final_completion().model_dump(mode="json")}


def json_schema(url, model):
    schema = {"name": "weather", "strict": True, "schema": WEATHER_PARAMETERS}
    options = {"response_format": {"type": "json_schema", "json_schema": schema}}
    return dumped(completions_of(url).create(model=model, messages=[user(WEATHER_QUESTION)], **FORCED, **options))


def json_object(url, model):
    options = {"response_format": {"type": "json_object"}}
    return dumped(completions_of(url).create(model=model, messages=[user(WEATHER_QUESTION)], **GREEDY, **options))


def parse(url, model):
    answer = completions_of(url).parse(
        model=model, messages=[user(WEATHER_QUESTION)], response_format=Weather, **FORCED
    )
    return {"answer": dumped(answer), "parsed": answer.choices[0].message.parsed.model_dump()}


def structured_choice(url, model):
    options = {"extra_body": {"structured_outputs": {"choice": ["sunny", "rainy"]}}}
    return dumped(completions_of(url).create(model=model, messages=[user(WEATHER_QUESTION)], **FORCED, **options))
