"""Calls of `litellm`, with the provider `openai` unless it says otherwise."""

import asyncio
import os

# It would ask the internet for prices, and wait.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import openai
from questions import (
    FOLLOW_UP,
    FORCED,
    GREEDY,
    PROMPT,
    QUESTION,
    TIME_TOOL,
    TOO_LONG,
    WEATHER,
    WEATHER_QUESTION,
    WEATHER_TOOL,
    Weather,
    messages,
    user,
)

litellm.telemetry = False


def ask(url, model, history, provider="openai", **options):
    return litellm.completion(
        model=f"{provider}/{model}", api_base=f"{url}/v1", api_key="key", messages=history, **options
    )


def chat(url, model):
    return ask(url, model, messages(), **GREEDY).model_dump(mode="json")


def chat_hosted_vllm(url, model):
    return ask(url, model, messages(), provider="hosted_vllm", **GREEDY).model_dump(mode="json")


def chat_stream(url, model):
    stream = ask(url, model, messages(), stream=True, stream_options={"include_usage": True}, **GREEDY)
    return [chunk.model_dump(mode="json") for chunk in stream]


def chat_async(url, model):
    options = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "key", **GREEDY}
    return asyncio.run(litellm.acompletion(messages=messages(), **options)).model_dump(mode="json")


def second_turn(url, model):
    first = ask(url, model, messages(), **GREEDY).choices[0].message
    return ask(url, model, messages(first.model_dump(), user(FOLLOW_UP)), **GREEDY).model_dump(mode="json")


def tools(url, model):
    """The model calls a tool, and gets its result."""
    asked = [user(WEATHER_QUESTION)]
    choice = {"type": "function", "function": {"name": "get_weather"}}
    first = ask(url, model, asked, tools=[WEATHER_TOOL, TIME_TOOL], tool_choice=choice, **FORCED)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "name": "get_weather", "content": WEATHER}
    second = ask(url, model, [*asked, message, result], tools=[WEATHER_TOOL], tool_choice="none", **GREEDY)
    return {"first": first.model_dump(mode="json"), "second": second.model_dump(mode="json")}


def tools_stream(url, model):
    asked = [user(WEATHER_QUESTION)]
    stream = ask(url, model, asked, tools=[WEATHER_TOOL], tool_choice="required", stream=True, **FORCED)
    return litellm.stream_chunk_builder(list(stream), messages=asked).model_dump(mode="json")


def structured(url, model):
    return ask(url, model, [user(WEATHER_QUESTION)], response_format=Weather, **FORCED).model_dump(mode="json")


def completion(url, model):
    options = {"model": f"text-completion-openai/{model}", "api_base": f"{url}/v1", "api_key": "key"}
    return litellm.text_completion(prompt=PROMPT, **options, **GREEDY).model_dump(mode="json")


def responses(url, model):
    options = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "key", "temperature": 0}
    return litellm.responses(input=QUESTION, max_output_tokens=16, **options).model_dump(mode="json")


def errors(url, model):
    long = [user(TOO_LONG)]
    embedding = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "key", "max_retries": 0}
    return {
        "unknown model": raised(lambda: ask(url, "other", messages(), max_retries=0)),
        "too long": raised(lambda: ask(url, model, long, max_retries=0)),
        "too long stream": raised(lambda: list(ask(url, model, long, max_retries=0, stream=True))),
        "too long for hosted_vllm": raised(lambda: ask(url, model, long, provider="hosted_vllm", max_retries=0)),
        "embeddings": raised(lambda: litellm.embedding(input=["a"], **embedding)),
    }


def raised(call):
    try:
        return {"returned": str(call())}
    except openai.APIError as error:
        return {"class": type(error).__name__, "status": error.status_code}
