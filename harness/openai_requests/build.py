"""What the tables of requests are made of."""

from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ABSENT: Any = object()
"""As a field's value: the field is not sent."""

PROMPT = "The sky is"
PROMPT_TOKENS = [504, 6376, 314]
QUESTION = {"role": "user", "content": "Why is the sky blue?"}
START_OF_TURN, END_OF_TURN = 1, 2
"""Tokens; the second one ends an answer."""


@dataclass(frozen=True)
class Request:
    name: str
    path: str
    body: dict[str, Any]
    streamed: bool = field(default=False, kw_only=True)

    @property
    def as_stream(self):
        """The same with `stream: true` and usage at the end, unless it says something about streams itself."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return Request(f"{self.name}, streamed", self.path, options | self.body, streamed=True)


def chat(name, messages=(QUESTION,), **fields):
    """A greedy answer of a few tokens, unless `fields` say otherwise."""
    return _request(f"chat: {name}", CHAT, {"messages": _plain(messages), **fields})


def completion(name, prompt=PROMPT, **fields):
    return _request(f"completion: {name}", COMPLETIONS, {"prompt": prompt, **fields})


def both(name, **fields):
    """The same parameters on both paths."""
    return [chat(name, **fields), completion(name, **fields)]


def _request(name, path, fields):
    body = {"max_tokens": 5, "temperature": 0, **fields}
    return Request(name, path, {key: value for key, value in body.items() if value is not ABSENT})


def _plain(messages):
    return list(messages) if isinstance(messages, tuple) else messages


def tool(name="look", **more):
    parameters = {"type": "object", "properties": {"at": {"type": "string", "enum": ["up"]}}, "required": ["at"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def hermes_call(name="look", arguments='{"at": "up"}'):
    """A regex that makes the model say one tool call, in the format that the parser `hermes` reads."""
    said = f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
    return "".join(f"\\{character}" if character in "{}[]()." else character for character in said)
