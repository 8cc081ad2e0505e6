"""The body of an AG-UI run, as far as it is honoured. Pure. Decoded by `requests`.

Other fields are skipped, at every level.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Raw, Struct

from everstream.web.description import raw_field


class Source(Struct, rename="camel"):
    """`value`: a URL, or base64."""

    type: str
    value: str
    mime_type: str = ""


class Part(Struct):
    """Of a user's message."""

    type: str
    text: str = ""
    source: Source | None = None


class Function(Struct):
    name: str
    arguments: str


class Call(Struct):
    id: str
    function: Function


class Message(Struct, rename="camel"):
    """Which fields it has depends on `role`. An activity's content is an object."""

    role: Literal["developer", "system", "assistant", "user", "tool", "reasoning", "activity"]
    content: str | list[Part] | dict[str, Raw] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str = ""
    error: str | None = None


class Tool(Struct):
    """That the client executes. `parameters`: a JSON schema."""

    name: str
    description: str = ""
    parameters: Raw = raw_field(b"{}")


class Context(Struct):
    description: str
    value: str


Id = Annotated[str, Meta(min_length=1, max_length=200)]


class RunInput(Struct, rename="camel"):
    """AG-UI's `RunAgentInput`. The names of `forwarded_props` are those of the model's inputs, and `model`."""

    thread_id: Id
    run_id: Id
    messages: list[Message]
    tools: list[Tool] | None = None
    context: list[Context] | None = None
    forwarded_props: dict[str, Raw] | None = None
    state: Any = None
    protocol_version: Any = None
    parent_run_id: Any = None
    resume: Any = None
    data: Any = None
