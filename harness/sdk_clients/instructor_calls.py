"""Calls of `instructor`."""

import instructor
import openai
from questions import FORCED, WEATHER_QUESTION, Weather, user


def extracted(url, model, mode):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="key"), mode=mode)
    asked = {"messages": [user(WEATHER_QUESTION)], "response_model": Weather, "max_retries": 0}
    return client.chat.completions.create(model=model, **asked, **FORCED).model_dump()


def tools(url, model):
    return extracted(url, model, instructor.Mode.TOOLS)


def tools_strict(url, model):
    return extracted(url, model, instructor.Mode.TOOLS_STRICT)


def json_schema(url, model):
    return extracted(url, model, instructor.Mode.JSON_SCHEMA)


def json(url, model):
    return extracted(url, model, instructor.Mode.JSON)


def partial(url, model):
    """The object grows as its stream goes on."""
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="key"), mode=instructor.Mode.JSON_SCHEMA
    )
    asked = {"messages": [user(WEATHER_QUESTION)], "response_model": Weather, "max_retries": 0}
    stream = client.chat.completions.create_partial(model=model, **asked, **FORCED)
    return [each.model_dump() for each in stream]
