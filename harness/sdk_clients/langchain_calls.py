"""Calls of `langchain-openai`."""

from typing import Literal

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from questions import (
    FOLLOW_UP,
    FORCED_TOKENS,
    MAX_TOKENS,
    PROMPT,
    QUESTION,
    TOO_LONG,
    WEATHER,
    WEATHER_QUESTION,
    Weather,
)


@tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """The weather in a city."""
    return WEATHER


def server(url):
    return {"base_url": f"{url}/v1", "api_key": "key", "max_retries": 0}


def chat_of(url, model, **options):
    return ChatOpenAI(**server(url), model=model, **{"temperature": 0, "max_tokens": MAX_TOKENS, **options})


def chat(url, model):
    return chat_of(url, model).invoke(QUESTION).model_dump(mode="json")


def chat_stream(url, model):
    return [chunk.model_dump(mode="json") for chunk in chat_of(url, model).stream(QUESTION)]


def chat_batch(url, model):
    return [answer.content for answer in chat_of(url, model).batch([QUESTION, FOLLOW_UP, WEATHER_QUESTION])]


def second_turn(url, model):
    chat = chat_of(url, model)
    history = [HumanMessage(QUESTION)]
    history += [chat.invoke(history), HumanMessage(FOLLOW_UP)]
    return chat.invoke(history).model_dump(mode="json")


def tools(url, model):
    """The model calls a tool, and gets its result."""
    chat = chat_of(url, model, max_tokens=FORCED_TOKENS)
    history = [HumanMessage(WEATHER_QUESTION)]
    first = chat.bind_tools([get_weather], tool_choice="get_weather", strict=True).invoke(history)
    results = [get_weather.invoke(call) for call in first.tool_calls]
    assert all(isinstance(result, ToolMessage) for result in results)
    second = chat.bind_tools([get_weather], tool_choice="none").invoke([*history, first, *results])
    return {"first": first.model_dump(mode="json"), "second": second.model_dump(mode="json")}


def tools_stream(url, model):
    chat = chat_of(url, model, max_tokens=FORCED_TOKENS).bind_tools([get_weather], tool_choice="any", strict=True)
    whole = None
    for chunk in chat.stream(WEATHER_QUESTION):
        whole = chunk if whole is None else whole + chunk
    return whole.model_dump(mode="json")


def structured(url, model):
    """With its default method, a JSON schema."""
    chat = chat_of(url, model, max_tokens=FORCED_TOKENS).with_structured_output(Weather)
    return chat.invoke(WEATHER_QUESTION).model_dump()


def structured_by_a_tool(url, model):
    chat = chat_of(url, model, max_tokens=FORCED_TOKENS)
    structured = chat.with_structured_output(Weather, method="function_calling", strict=True)
    return structured.invoke(WEATHER_QUESTION).model_dump()


def structured_stream(url, model):
    chat = chat_of(url, model, max_tokens=FORCED_TOKENS).with_structured_output(Weather)
    return [each.model_dump() for each in chat.stream(WEATHER_QUESTION)]


def completion_of(url, model):
    return OpenAI(**server(url), model=model, temperature=0, max_tokens=MAX_TOKENS)


def completion(url, model):
    return completion_of(url, model).generate([PROMPT, QUESTION]).model_dump(mode="json")


def completion_stream(url, model):
    return list(completion_of(url, model).stream(PROMPT))


def responses(url, model):
    return chat_of(url, model, use_responses_api=True).invoke(QUESTION).model_dump(mode="json")


def responses_stream(url, model):
    return [chunk.model_dump(mode="json") for chunk in chat_of(url, model, use_responses_api=True).stream(QUESTION)]


def responses_tools(url, model):
    chat = chat_of(url, model, use_responses_api=True, max_tokens=FORCED_TOKENS)
    history = [HumanMessage(WEATHER_QUESTION)]
    first = chat.bind_tools([get_weather], tool_choice="get_weather", strict=True).invoke(history)
    results = [get_weather.invoke(call) for call in first.tool_calls]
    second = chat.bind_tools([get_weather], tool_choice="none").invoke([*history, first, *results])
    return {"first": first.model_dump(mode="json"), "second": second.model_dump(mode="json")}


def errors(url, model):
    embeddings = OpenAIEmbeddings(**server(url), model=model, check_embedding_ctx_length=False)
    return {
        "unknown model": raised(lambda: chat_of(url, "other").invoke(QUESTION)),
        "too long": raised(lambda: chat_of(url, model).invoke(TOO_LONG)),
        "too long stream": raised(lambda: list(chat_of(url, model).stream(TOO_LONG))),
        "embeddings": raised(lambda: embeddings.embed_query(QUESTION)),
    }


def raised(call):
    try:
        return {"returned": str(call())}
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.code}
