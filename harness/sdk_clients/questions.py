"""What every client asks: short, deterministic, and with answers that the demo model can't help but finish."""

import urllib.request
from typing import Literal

from pydantic import BaseModel, Field

SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
FOLLOW_UP = "And of Italy?"
WEATHER_QUESTION = "What is the weather in Paris?"
WEATHER = "18 degrees, light rain"
STORY = "Write a long story about a dragon."
PROMPT = "Once upon a time"
LONG_TOKENS = 1000
TOO_LONG = "word " * 5000
"""More tokens than the model's context has."""
MAX_TOKENS = 16
FORCED_TOKENS = 128
"""Enough for each of the objects below."""
GREEDY = {"temperature": 0, "max_tokens": MAX_TOKENS}
FORCED = {"temperature": 0, "max_tokens": FORCED_TOKENS}


class Weather(BaseModel):
    """An object of few tokens, whatever the model would like to say."""

    city: Literal["Paris", "Rome"]
    degrees: int = Field(ge=0, le=9)
    rain: bool


def messages(*more):
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}, *more]


def user(content):
    return {"role": "user", "content": content}


WEATHER_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name, description):
    """Strict, because vLLM leaves the arguments of others free."""
    function = {"name": name, "description": description, "parameters": WEATHER_PARAMETERS, "strict": True}
    return {"type": "function", "function": function}


WEATHER_TOOL = tool("get_weather", "The weather in a city.")
TIME_TOOL = tool("get_time", "The time in a city.")


def stop_answer(url, answer_id):
    """Stop an answer that is on its way; its id ends in the generation's."""
    generation = answer_id.replace("_", "-").rpartition("-")[2]
    request = urllib.request.Request(f"{url}/generations/{generation}", method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()
