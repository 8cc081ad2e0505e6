"""Chat messages, and checks of the chat model's inputs beyond their schema. Pure; web and engine processes use it.

In: inputs as `contract.inputs` leaves them. Out: messages for vLLM, or an InvalidInput with the place. A message may
have more fields than the ones here, because OpenAI's SDKs send back all that they got, and null is the same as absent.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from everstream.contract.inputs import check_containers
from everstream.errors import InvalidInput
from everstream.llm.input_bounds import check_bounds

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 1000
MAX_CHOICES = 128
"""Of all prompts. To the engine they are one generation, and to vLLM as many requests."""


def check_inputs(inputs: dict[str, Any]) -> None:
    """Check what the schema can't express: which prompt goes with what, and a message's format. Raises InvalidInput."""
    if len(prompts := [name for name in ("prompt", "prompts", "messages") if name in inputs]) > 1:
        raise InvalidInput(f"give either {prompts[0]} or {prompts[1]}, not both", param=prompts[1])
    if not prompts:
        raise InvalidInput("prompt is missing: give prompt (one user turn) or messages (JSON)", param="prompt")
    check_bounds(inputs)
    _check_count(inputs)
    name = prompts[0]
    if name != "prompt" and "system" in inputs:
        raise InvalidInput("system goes with prompt; put a system message into messages", param="system")
    if name == "messages" and inputs.get("raw"):
        raise InvalidInput("raw goes with prompt; messages always use the chat template", param="raw")
    if inputs.get("raw") and "system" in inputs:
        raise InvalidInput("system has no place in a raw prompt", param="system")
    if inputs.get("max_tokens") == 0 and not inputs.get("echo"):
        raise InvalidInput("max_tokens must be from 1 to 1000000, got 0", param="max_tokens")
    if name == "messages":
        parse_messages(inputs["messages"])
    elif name == "prompt" and not (inputs["prompt"] if inputs.get("raw") else inputs["prompt"].strip()):
        raise InvalidInput("prompt is empty", param="prompt")


def _check_count(inputs: Mapping[str, Any]) -> None:
    prompts = inputs.get("prompts")
    # A list of numbers is the tokens of one prompt.
    several = prompts if isinstance(prompts, list) and any(isinstance(each, (str, list)) for each in prompts) else []
    count = (len(several) or 1) * inputs.get("n", 1)
    if count > MAX_CHOICES:
        param = "prompts" if several else "n"
        raise InvalidInput(f"{count} choices are asked for in all; at most {MAX_CHOICES} are allowed", param=param)


class Part(msgspec.Struct, gc=False):
    type: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    type: str | None = None


class Message(msgspec.Struct, gc=False):
    role: Literal[ROLES]  # type: ignore[valid-type]
    content: str | list[str | Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


def parse_messages(text: str) -> list[Message]:
    """The chat turns, as far as they are checked before vLLM sees them. Raises InvalidInput."""
    check_containers("messages", msgspec.Raw(text.encode()))
    try:
        messages: list[Message] = _messages_decoder.decode(text)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except (ValueError, RecursionError):
        raise InvalidInput("messages is not JSON, or contains half a surrogate pair", param="messages") from None
    return messages


# The decoder stops at the first error, so a body of many small values does not become as many objects.
_Messages = Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
_messages_decoder = msgspec.json.Decoder(_Messages)
MESSAGES_SCHEMA = msgspec.json.schema(_Messages)
"""For `input_schema.py`."""
_WANTED = {
    "": f"must be a JSON array of 1 to {MAX_MESSAGES} messages",
    "]": "must be an object with role and content",
    "role": f"must be one of {', '.join(ROLES)}",
    "content": "must be a string or an array of content parts",
    "name": "must be a string",
    "tool_calls": "must be an array of objects",
    "tool_call_id": "must be a string",
    "type": "must be a string",
}


def _explained(error: msgspec.ValidationError) -> InvalidInput:
    """msgspec's messages end with the path: `$[1].role`. The part before it may quote the client."""
    _, has_place, path = str(error).rpartition(" - at `$")
    path = path.replace("[...]", "").rstrip("`") if has_place else ""
    last = path.rpartition(".")[2].partition("[")[0] if "." in path else path[-1:]
    return InvalidInput(f"messages{path} {_WANTED[last]}", param=f"messages{path}")


def as_messages(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For vLLM's chat template."""
    if "messages" in inputs:
        return [_filled(message) for message in msgspec.json.decode(inputs["messages"])]
    system = [{"role": "system", "content": inputs["system"]}] if inputs.get("system") else []
    return [*system, {"role": "user", "content": inputs["prompt"]}]


def check_media(messages: Sequence[Mapping[str, Any]]) -> None:
    """Refuse images and the like that are not in the request itself: vLLM would fetch any address that this host can
    reach, for whoever asks (server-side request forgery). Raises InvalidInput."""
    for at, message in enumerate(messages):
        content = message.get("content")
        for number, part in enumerate(content if isinstance(content, list) else ()):
            for name, value in part.items() if isinstance(part, dict) else ():
                url = value.get("url") if isinstance(value, dict) else value
                if name.endswith("_url") and not str(url).startswith("data:"):
                    raise InvalidInput(
                        f"{name} must be a data: URL; others need --allowed-media-domains in ENGINE_ARGS",
                        param=f"messages[{at}].content[{number}].{name}",
                    )


def _filled(message: dict[str, Any]) -> dict[str, Any]:
    """Many templates require a content, and some take a null for a value."""
    filled = {"content": "", **{name: value for name, value in message.items() if value is not None}}
    if isinstance(filled["content"], list):
        filled["content"] = [_without_uuid(part) for part in filled["content"]]
    return filled


def _without_uuid(part: Any) -> Any:
    """vLLM caches media under a client's `uuid` for all clients, so whoever guesses one sees or replaces another's."""
    return {name: value for name, value in part.items() if name != "uuid"} if isinstance(part, dict) else part
