"""What the chat model of `app.py` takes, in the words of the Inferless contract.

`raw` gives the model the prompt as it stands, without the chat template; `ignore_eos` has it go on to `max_tokens`.
`minimum`, `maximum`, `min_length`, `max_length`, `max_items` and `format` are additions of ours to the contract's
`datatype`, `required`, `shape` and `example`. The web process checks requests against this before anything starts.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from everstream.errors import InvalidInput

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
        messages = _messages_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except (ValueError, RecursionError):
        raise InvalidInput("messages is not JSON, or holds half a surrogate pair", param="messages") from None
    return [{"role": message.role, "content": message.content} for message in messages]


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal[ROLES]  # type: ignore[valid-type]
    content: Annotated[str, Meta(min_length=1)]


# It stops at the first thing that is wrong, so that a body of small things is not made into as many objects.
_messages_decoder = msgspec.json.Decoder(Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)])
_WANTED = {
    "": f"must be a JSON array of 1 to {MAX_MESSAGES} messages",
    "]": "must be an object with role and content, and nothing else",
    "role": f"must be one of {', '.join(ROLES)}",
    "content": "must be a string that is not empty",
}


def _explained(error: msgspec.ValidationError) -> InvalidInput:
    """msgspec's messages end with the place: `$[1].role`. Before it they may quote the client."""
    _, has_place, path = str(error).rpartition(" - at `$")
    path = path.rstrip("`") if has_place else ""
    last = path.rpartition(".")[2] if "." in path else path[-1:]
    return InvalidInput(f"messages{path} {_WANTED[last]}", param=f"messages{path}")
