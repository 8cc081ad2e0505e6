"""Calls of the `anthropic` package, for /v1/messages."""

import anthropic
from questions import (
    FOLLOW_UP,
    FORCED_TOKENS,
    LONG_TOKENS,
    MAX_TOKENS,
    QUESTION,
    STORY,
    SYSTEM,
    TOO_LONG,
    WEATHER,
    WEATHER_PARAMETERS,
    WEATHER_QUESTION,
    stop_answer,
    user,
)

# This client has no temperature of its own any more.
ZERO = {"extra_body": {"temperature": 0}}
GREEDY = {"max_tokens": MAX_TOKENS, **ZERO}
FORCED = {"max_tokens": FORCED_TOKENS, **ZERO}
TOOL = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": WEATHER_PARAMETERS,
    "strict": True,
}


def client_of(url, **options):
    return anthropic.Anthropic(base_url=url, api_key="key", **options)


def dumped(answer):
    return answer.model_dump(mode="json") | {"_request_id": answer._request_id}


def message(url, model):
    options = {"system": SYSTEM, "messages": [user(QUESTION)], **GREEDY}
    return dumped(client_of(url).messages.create(model=model, **options))


def message_stream(url, model):
    options = {"system": SYSTEM, "messages": [user(QUESTION)], **GREEDY}
    stream = client_of(url).messages.create(model=model, stream=True, **options)
    return [event.model_dump(mode="json") for event in stream]


def message_stream_helper(url, model):
    with client_of(url).messages.stream(model=model, messages=[user(QUESTION)], **GREEDY) as stream:
        text = "".join(stream.text_stream)
        return {"text": text, "answer": stream.get_final_message().model_dump(mode="json")}


def second_turn(url, model):
    """The first answer's blocks go back as the client has them."""
    messages = client_of(url).messages
    first = messages.create(model=model, messages=[user(QUESTION)], **GREEDY)
    history = [user(QUESTION), {"role": "assistant", "content": first.content}, user(FOLLOW_UP)]
    return dumped(messages.create(model=model, messages=history, **GREEDY))


def tools(url, model):
    """The model calls a tool, and gets its result."""
    messages = client_of(url).messages
    asked = [user(WEATHER_QUESTION)]
    choice = {"type": "tool", "name": "get_weather"}
    first = messages.create(model=model, messages=asked, tools=[TOOL], tool_choice=choice, **FORCED)
    call = next(block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": WEATHER}]}
    history = [*asked, {"role": "assistant", "content": first.content}, user([result])]
    second = messages.create(model=model, messages=history, tools=[TOOL], tool_choice={"type": "none"}, **GREEDY)
    return {"first": dumped(first), "second": dumped(second)}


def tool_runner(url, model):
    """The client's own loop, which begins by asking for a thread."""

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
            city: The city's name.
        """
        return f"{WEATHER} in {city}"

    options = {"tools": [get_weather], "messages": [user(QUESTION)], "tool_choice": {"type": "none"}}
    return dumped(client_of(url).beta.messages.tool_runner(model=model, **options, **GREEDY).until_done())


def tools_stream(url, model):
    options = {"tools": [TOOL], "tool_choice": {"type": "any"}, "messages": [user(WEATHER_QUESTION)]}
    with client_of(url).messages.stream(model=model, **options, **FORCED) as stream:
        events = [event.type for event in stream]
        return {"events": events, "answer": stream.get_final_message().model_dump(mode="json")}


def count_tokens(url, model):
    options = {"system": SYSTEM, "messages": [user(QUESTION)]}
    return client_of(url).messages.count_tokens(model=model, **options).model_dump(mode="json")


def refused(call):
    """What the client raises."""
    try:
        return {"returned": call().model_dump(mode="json")}
    except anthropic.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "request_id": error.request_id,
            "body": error.body,
        }


def errors(url, model):
    messages = client_of(url, max_retries=0).messages
    return {
        "unknown model": refused(lambda: messages.create(model="other", messages=[user(QUESTION)], **GREEDY)),
        "too long": refused(lambda: messages.create(model=model, messages=[user(TOO_LONG)], **GREEDY)),
        "no messages": refused(lambda: messages.create(model=model, messages=[], **GREEDY)),
        "unknown model's tokens": refused(lambda: messages.count_tokens(model="other", messages=[user(QUESTION)])),
    }


def stopped_stream(url, model):
    """What the client makes of an answer that is stopped on its way."""
    texts = []
    options = {"messages": [user(STORY)], "max_tokens": LONG_TOKENS}
    try:
        with client_of(url).messages.stream(model=model, **options) as stream:
            for text in stream.text_stream:
                texts.append(text)
                if len(texts) == 3:
                    stop_answer(url, stream.current_message_snapshot.id)
    except anthropic.APIStatusError as error:
        return {"class": type(error).__name__, "body": error.body, "texts": texts}
