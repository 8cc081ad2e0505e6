"""What the chat model of `app.py` takes, in the words of the Inferless contract.

`raw` gives the model the prompt as it stands, without the chat template; `ignore_eos` has it go on to `max_tokens`.
`minimum`, `maximum`, `min_length`, `max_length`, `max_items` and `format` are additions of ours to the contract's
`datatype`, `required`, `shape` and `example`. The web process checks requests against this before anything starts.
"""

import json
from typing import Any

from everstream.errors import InvalidInput
from everstream.inputs import is_text

IS_STREAMING_OUTPUT = True

INPUT_SCHEMA: dict[str, dict[str, Any]] = {
    "prompt": {
        "datatype": "STRING",
        "required": False,
        "shape": [1],
        "example": ["Why is the sky blue?"],
    },
    "messages": {
        "datatype": "STRING",
        "required": False,
        "shape": [1],
        "example": ['[{"role": "user", "content": "Why is the sky blue?"}]'],
        "format": "json",
    },
    "raw": {"datatype": "BOOL", "required": False, "shape": [1], "example": [False]},
    "system": {"datatype": "STRING", "required": False, "shape": [1], "example": ["You are terse."]},
    "max_tokens": {
        "datatype": "INT32",
        "required": False,
        "shape": [1],
        "example": [256],
        "minimum": 1,
        "maximum": 1_000_000,
    },
    "temperature": {
        "datatype": "FP32",
        "required": False,
        "shape": [1],
        "example": [0.7],
        "minimum": 0,
        "maximum": 2,
    },
    "top_p": {
        "datatype": "FP32",
        "required": False,
        "shape": [1],
        "example": [0.95],
        "minimum": 0.001,
        "maximum": 1,
    },
    "top_k": {
        "datatype": "INT32",
        "required": False,
        "shape": [1],
        "example": [40],
        "minimum": 0,
        "maximum": 100_000,
    },
    "seed": {
        "datatype": "INT64",
        "required": False,
        "shape": [1],
        "example": [7],
        "minimum": 0,
        "maximum": 2**63 - 1,
    },
    "ignore_eos": {"datatype": "BOOL", "required": False, "shape": [1], "example": [False]},
    "stop": {
        "datatype": "STRING",
        "required": False,
        "shape": [-1],
        "example": ["\n\n"],
        "max_items": 4,
        "min_length": 1,
        "max_length": 200,
    },
}

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 1000


def check_inputs(inputs: dict[str, Any]) -> None:
    """What the schema can't say: `prompt` or `messages`, and what a message is. Raises InvalidInput."""
    if "prompt" in inputs and "messages" in inputs:
        raise InvalidInput("give either prompt or messages, not both", param="messages")
    if "messages" in inputs:
        if inputs.get("raw"):
            raise InvalidInput("raw goes with prompt; messages always have the chat template", param="raw")
        if "system" in inputs:
            raise InvalidInput("system goes with prompt; put a system message into messages", param="system")
        parse_messages(inputs["messages"])
    elif "system" in inputs and inputs.get("raw"):
        raise InvalidInput("system has no place in a raw prompt", param="system")
    elif "prompt" not in inputs:
        raise InvalidInput("prompt is missing: give prompt (one user turn) or messages (JSON)", param="prompt")
    elif not (inputs["prompt"] if inputs.get("raw") else inputs["prompt"].strip()):
        raise InvalidInput("prompt is empty", param="prompt")


def parse_messages(text: str) -> list[dict[str, str]]:
    """The chat turns, each `{"role", "content"}`. Raises InvalidInput."""
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("messages is not JSON", param="messages") from None
    if not isinstance(messages, list) or not messages or len(messages) > MAX_MESSAGES:
        raise InvalidInput(f"messages must be a JSON array of 1 to {MAX_MESSAGES} messages", param="messages")
    for at, message in enumerate(messages):
        _check_message(message, f"messages[{at}]")
    return messages


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict) or set(message) != {"role", "content"}:
        raise InvalidInput(f"{where} must be an object with role and content, and nothing else", param=where)
    if message["role"] not in ROLES:
        raise InvalidInput(f"{where}.role must be one of {', '.join(ROLES)}", param=f"{where}.role")
    if not isinstance(message["content"], str) or not message["content"]:
        raise InvalidInput(f"{where}.content must be a string that is not empty", param=f"{where}.content")
    if not is_text(message["content"]):
        raise InvalidInput(f"{where}.content holds half a surrogate pair", param=f"{where}.content")
