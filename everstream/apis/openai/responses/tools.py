"""A request's tools, and which of them the model may or must call. Pure. Called by `requests`."""

from typing import Annotated, Any

from msgspec import Raw, Struct

from everstream.errors import InvalidInput
from everstream.web.description import REQUIRED


class Tool(Struct):
    """A function that the client offers; `type` is `function`, and `parameters` are a JSON Schema."""

    type: str
    name: Annotated[str, REQUIRED] = ""
    description: str | None = None
    # Stays JSON within: a schema may be large.
    parameters: dict[str, Raw] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if self.type != "function":
            raise ValueError(f"tools of type {self.type[:40]!r} are not supported, only functions")
        if not self.name:
            raise ValueError("a function needs a name")

    def for_chat(self) -> dict[str, Any]:
        """In the form of a chat request."""
        given: dict[str, Any] = {"description": self.description, "strict": self.strict}
        function = {"name": self.name} | {name: value for name, value in given.items() if value is not None}
        if self.parameters is not None:
            function["parameters"] = self.parameters
        return {"type": "function", "function": function}


class AllowedTool(Struct):
    type: str
    name: Annotated[str, REQUIRED] = ""


class ToolChoice(Struct, omit_defaults=True):
    """`{"type": "function", "name": …}`, or `{"type": "allowed_tools", "mode": …, "tools": […]}`."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[AllowedTool] = []

    def __post_init__(self) -> None:
        if self.type not in ("function", "allowed_tools"):
            raise ValueError(f"tool_choice can be a function or allowed_tools, not {self.type[:40]!r}")
        if self.type == "allowed_tools" and self.mode not in ("auto", "required"):
            raise ValueError("mode must be auto or required")


def chat_tools(tools: list[Tool], choice: str | ToolChoice | None) -> dict[str, Any]:
    """The inputs `tools` and `tool_choice`, without those that say nothing. Raises InvalidInput."""
    if isinstance(choice, ToolChoice) and choice.type == "allowed_tools":
        tools, choice = _allowed(tools, choice), choice.mode
    if isinstance(choice, ToolChoice):
        _check_known(choice.name or "", tools)
        chosen: Any = {"type": "function", "function": {"name": choice.name}}
    elif choice not in (None, "none", "auto", "required"):
        raise InvalidInput("tool_choice must be none, auto, required, or name a function", param="tool_choice")
    else:
        chosen = choice
    if not tools:
        if choice == "required":
            raise InvalidInput("tool_choice is required, but there are no tools", param="tool_choice")
        return {}
    inputs: dict[str, Any] = {"tools": [tool.for_chat() for tool in tools]}
    return inputs if chosen is None else inputs | {"tool_choice": chosen}


def _allowed(tools: list[Tool], choice: ToolChoice) -> list[Tool]:
    names = {tool.name for tool in choice.tools}
    for name in names:
        _check_known(name, tools)
    return [tool for tool in tools if tool.name in names]


def _check_known(name: str, tools: list[Tool]) -> None:
    if name not in (tool.name for tool in tools):
        raise InvalidInput(f"tool_choice names {name[:100]!r}, which is not among the tools", param="tool_choice")
