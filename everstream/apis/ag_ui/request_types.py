"""The body of an AG-UI run, as far as it is honoured. Pure. Decoded by `requests`.

Other fields are skipped, at every level.
"""

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from everstream.web.description import raw_field


class Source(Struct, rename="camel"):
    """`value`: a URL, or base64."""

    type: str
    value: str
    mime_type: str = ""


class Part(Struct):
    """A piece of a message."""

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
    """The client executes it. `parameters`: a JSON schema."""

    name: str
    description: str = ""
    parameters: Raw = raw_field(b"{}")


class Context(Struct):
    description: str
    value: str


Id = Annotated[str, Meta(min_length=1, max_length=200)]


class RunNames(Struct, rename="camel", kw_only=True):
    """What is read of an input before the rest. The names of `forwarded_props` are those of the model's inputs, and
    `model`."""

    run_id: Id
    forwarded_props: dict[str, Raw] | None = None


class RunInput(RunNames, rename="camel", kw_only=True):
    """AG-UI's `RunAgentInput`."""

    thread_id: Id
    messages: list[Message]
    tools: list[Tool] | None = None
    context: list[Context] | None = None
    state: Raw = raw_field(b"null")
    protocol_version: Raw = raw_field(b"null")
    parent_run_id: Raw = raw_field(b"null")
    resume: Raw = raw_field(b"null")
    data: Raw = raw_field(b"null")
