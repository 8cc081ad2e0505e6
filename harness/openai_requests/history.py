"""Conversations as clients send them back."""

from harness.openai_requests.build import QUESTION, chat

ANSWER = {
    "role": "assistant",
    "content": "Because of Rayleigh scattering.",
    "refusal": None,
    "annotations": None,
    "audio": None,
    "function_call": None,
    "tool_calls": None,
}
"""What the Python SDK's `message.model_dump()` gives."""

MORE = {"role": "user", "content": "Say more."}
CALLS = [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}]
CALLED = {"role": "assistant", "content": None, "tool_calls": CALLS}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}


def _text(text):
    return {"type": "text", "text": text}


def _history(name, *messages):
    return chat(f"history: {name}", messages, return_token_ids=True)


HISTORY = [
    _history("a second turn", QUESTION, ANSWER, MORE),
    _history("system", {"role": "system", "content": "You are terse."}, QUESTION),
    _history("developer", {"role": "developer", "content": "You are terse."}, QUESTION),
    _history("system in the middle", QUESTION, ANSWER, {"role": "system", "content": "Be terse."}, MORE),
    _history("a part", {"role": "user", "content": [_text("Why is the sky blue?")]}),
    _history("two parts", {"role": "user", "content": [_text("Why is"), _text("the sky blue?")]}),
    _history("parts of the system", {"role": "system", "content": [_text("You are terse.")]}, QUESTION),
    _history("parts of the assistant", QUESTION, {"role": "assistant", "content": [_text("Light.")]}, MORE),
    _history("no parts", {"role": "user", "content": []}),
    _history("empty content", QUESTION, {"role": "assistant", "content": ""}, MORE),
    _history("name", {**QUESTION, "name": "ann"}),
    _history("tool calls with null content", QUESTION, CALLED, RESULT),
    _history("tool calls with empty content", QUESTION, {**CALLED, "content": ""}, RESULT),
    _history("tool calls without content", QUESTION, {"role": "assistant", "tool_calls": CALLS}, RESULT),
    _history("empty tool calls", QUESTION, {**ANSWER, "tool_calls": []}, MORE),
    _history("a tool's result in parts", QUESTION, CALLED, {**RESULT, "content": [_text("18 degrees")]}),
    _history("a tool's result with a name", QUESTION, CALLED, {**RESULT, "name": "get_weather"}),
    _history("function", QUESTION, {"role": "function", "name": "get_weather", "content": "18 degrees"}),
    _history("reasoning_content", QUESTION, {**ANSWER, "reasoning_content": "Hm."}, MORE),
    _history("assistant last", QUESTION, {"role": "assistant", "content": "The sky"}),
    chat(
        "continue_final_message",
        [QUESTION, {"role": "assistant", "content": "The sky is blue because"}],
        continue_final_message=True,
        add_generation_prompt=False,
        return_token_ids=True,
    ),
    chat(
        "continue_final_message in parts",
        [QUESTION, {"role": "assistant", "content": [_text("The sky is blue because")]}],
        continue_final_message=True,
        add_generation_prompt=False,
        return_token_ids=True,
    ),
]
