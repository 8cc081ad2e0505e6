"""Chat messages, and checks of the chat model's inputs beyond their schema. Pure; web and engine processes use it.

In: inputs as `contract.inputs` leaves them. Out: messages for the chat template, or an InvalidInput with the place.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from everstream.errors import InvalidInput

ROLES = ("system", "user", "assistant")
MAX_MESSAGES = 1000


def check_inputs(inputs: dict[str, Any]) -> None:
    """Check what the schema can't express: `prompt` or `messages`, and a message's format. Raises InvalidInput."""
    if "prompt" in inputs and "messages" in inputs:
        raise InvalidInput("give either prompt or messages, not both", param="messages")
    if "messages" in inputs:
        if inputs.get("raw"):
            raise InvalidInput("raw goes with prompt; messages always use the chat template", param="raw")
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
        raise InvalidInput("messages is not JSON, or contains half a surrogate pair", param="messages") from None
    return [{"role": message.role, "content": message.content} for message in messages]


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal[ROLES]  # type: ignore[valid-type]
    content: Annotated[str, Meta(min_length=1)]


# The decoder stops at the first error, so a body of many small values does not become as many objects.
_messages_decoder = msgspec.json.Decoder(Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)])
_WANTED = {
    "": f"must be a JSON array of 1 to {MAX_MESSAGES} messages",
    "]": "must be an object with role and content, and nothing else",
    "role": f"must be one of {', '.join(ROLES)}",
    "content": "must be a string that is not empty",
}


def _explained(error: msgspec.ValidationError) -> InvalidInput:
    """msgspec's messages end with the path: `$[1].role`. The part before it may quote the client."""
    _, has_place, path = str(error).rpartition(" - at `$")
    path = path.rstrip("`") if has_place else ""
    last = path.rpartition(".")[2] if "." in path else path[-1:]
    return InvalidInput(f"messages{path} {_WANTED[last]}", param=f"messages{path}")


def as_messages(inputs: dict[str, Any]) -> list[dict[str, str]]:
    if "messages" in inputs:
        return parse_messages(inputs["messages"])
    system = [{"role": "system", "content": inputs["system"]}] if inputs.get("system") else []
    return [*system, {"role": "user", "content": inputs["prompt"]}]
