"""Agents of `pydantic-ai`, on each API that it speaks."""

from typing import Literal

from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from questions import FOLLOW_UP, FORCED, GREEDY, QUESTION, SYSTEM, TOO_LONG, WEATHER, WEATHER_QUESTION, Weather


def openai_provider(url):
    return OpenAIProvider(base_url=f"{url}/v1", api_key="key")


def agent_of(url, model, settings=GREEDY, **options):
    return Agent(OpenAIChatModel(model, provider=openai_provider(url)), model_settings=settings, retries=0, **options)


def outcome(result):
    usage = result.usage
    return {
        "output": result.output if isinstance(result.output, str) else result.output.model_dump(),
        "requests": usage.requests,
        "usage": [usage.input_tokens, usage.output_tokens],
        "parts": [part.part_kind for message in result.all_messages() for part in message.parts],
    }


def chat(url, model):
    return outcome(agent_of(url, model, instructions=SYSTEM).run_sync(QUESTION))


def chat_stream(url, model):
    streamed = agent_of(url, model).run_stream_sync(QUESTION)
    return {"chunks": list(streamed.stream_text(delta=True, debounce_by=None)), "whole": streamed.get_output()}


def second_turn(url, model):
    agent = agent_of(url, model)
    first = agent.run_sync(QUESTION)
    return outcome(agent.run_sync(FOLLOW_UP, message_history=first.all_messages()))


def structured_by_a_tool(url, model):
    agent = agent_of(url, model, FORCED, output_type=ToolOutput(Weather, strict=True))
    return outcome(agent.run_sync(WEATHER_QUESTION))


def structured(url, model):
    agent = agent_of(url, model, FORCED, output_type=NativeOutput(Weather, strict=True))
    return outcome(agent.run_sync(WEATHER_QUESTION))


def tools(url, model):
    """The model has to call a tool in the first step, and to answer in the second."""

    def forced_first(context):
        return FORCED | {"tool_choice": "required" if context.run_step == 1 else "none"}

    agent = agent_of(url, model, forced_first)

    @agent.tool_plain(strict=True)
    def get_weather(city: Literal["Paris", "Rome"]) -> str:
        """The weather in a city."""
        return WEATHER

    return outcome(agent.run_sync(WEATHER_QUESTION))


def responses(url, model):
    agent = Agent(OpenAIResponsesModel(model, provider=openai_provider(url)), model_settings=GREEDY, retries=0)
    first = agent.run_sync(QUESTION)
    return outcome(agent.run_sync(FOLLOW_UP, message_history=first.all_messages()))


def messages(url, model):
    provider = AnthropicProvider(base_url=url, api_key="key")
    agent = Agent(AnthropicModel(model, provider=provider), model_settings=GREEDY, retries=0)
    first = agent.run_sync(QUESTION)
    return outcome(agent.run_sync(FOLLOW_UP, message_history=first.all_messages()))


def errors(url, model):
    return {
        "unknown model": raised(lambda: agent_of(url, "other").run_sync(QUESTION)),
        "too long": raised(lambda: agent_of(url, model).run_sync(TOO_LONG)),
    }


def raised(call):
    try:
        return {"returned": outcome(call())}
    except ModelHTTPError as error:
        return {"status": error.status_code, "body": error.body}
