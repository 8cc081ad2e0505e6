"""Calls of `llm`, with a model in its own configuration file for OpenAI-compatible servers."""

import os
import tempfile
from pathlib import Path

import llm
import openai
import yaml
from questions import (
    FOLLOW_UP,
    FORCED,
    GREEDY,
    PROMPT,
    QUESTION,
    SYSTEM,
    TOO_LONG,
    WEATHER,
    WEATHER_QUESTION,
    Weather,
)

HOME = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = HOME.name


def model_of(url, model, **options):
    """The model as a user configures it."""
    configured = {"model_id": "ours", "model_name": model, "api_base": f"{url}/v1", **options}
    configured |= {"supports_tools": True, "supports_schema": True}
    Path(HOME.name, "extra-openai-models.yaml").write_text(yaml.safe_dump([configured]))
    return llm.get_model("ours")


def reported(response):
    usage = response.usage()
    return {"text": response.text(), "input": usage.input, "output": usage.output, "json": response.json()}


def chat(url, model):
    return reported(model_of(url, model).prompt(QUESTION, system=SYSTEM, stream=False, key="key", **GREEDY))


def chat_stream(url, model):
    response = model_of(url, model).prompt(QUESTION, system=SYSTEM, key="key", **GREEDY)
    chunks = list(response)
    return {"chunks": chunks, **reported(response)}


def second_turn(url, model):
    conversation = model_of(url, model).conversation()
    conversation.prompt(QUESTION, stream=False, key="key", **GREEDY).text()
    return reported(conversation.prompt(FOLLOW_UP, stream=False, key="key", **GREEDY))


def structured(url, model):
    response = model_of(url, model).prompt(WEATHER_QUESTION, schema=Weather, stream=False, key="key", **FORCED)
    return Weather.model_validate_json(response.text()).model_dump()


def tools(url, model):
    """It can't force a tool's call, so the model answers by itself."""

    def get_weather(city: str) -> str:
        """The weather in a city."""
        return WEATHER

    chain = model_of(url, model).chain(WEATHER_QUESTION, tools=[get_weather], key="key", stream=False, options=GREEDY)
    return [reported(response) for response in chain.responses()]


def completion(url, model):
    response = model_of(url, model, completion=True).prompt(PROMPT, stream=False, key="key", **GREEDY)
    return reported(response)


def too_long(url, model):
    try:
        return reported(model_of(url, model).prompt(TOO_LONG, stream=False, key="key"))
    except openai.BadRequestError as error:
        return {"class": type(error).__name__, "code": error.code}
