"""Turns the body of an AG-UI run into the chat model's inputs, which have vLLM's names. Pure. Called by `routes`."""

from collections.abc import Sequence
from typing import Any

import msgspec

from everstream.apis.ag_ui.conversation import chat_messages
from everstream.apis.ag_ui.request_types import RunInput, RunNames, Tool
from everstream.apis.ag_ui.run_events import Run
from everstream.contract import inputs
from everstream.contract.inputs import refuse_unknown
from everstream.contract.schema import Schema
from everstream.errors import InvalidInput
from everstream.log.entries import encode_json
from everstream.web.submission import is_request_id
from everstream.web.typed_bodies import decoded

OTHER_INPUTS = ("prompt", "prompts", "raw", "stream", "n", "echo", "suffix", "messages", "tools")
"""Inputs of the model that are given in other ways, or are for other kinds of answers."""
_NAMES = ("runId", "forwardedProps")
_NOTHING = (b"null", b"{}")
_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(RunInput))


class ParsedRun(msgspec.Struct, frozen=True):
    """`inputs` are the model's, where objects and arrays are `msgspec.Raw`. `ignored`: the names of fields that have no
    effect."""

    inputs: dict[str, Any]
    ignored: list[str]
    run: Run
    is_stream: bool = True


def flattened(body: dict[str, Any]) -> dict[str, Any]:
    """With the client's properties beside the protocol's own fields, and the run's id as the request's: sent again, the
    same request finds its run. Raises InvalidInput."""
    request = decoded({name: body[name] for name in _NAMES if name in body}, _names_decoder)
    forwarded = request.forwarded_props or {}
    if len(forwarded) > inputs.MAX_NAMES:
        raise InvalidInput(f"forwardedProps has more than {inputs.MAX_NAMES} names", param="forwardedProps")
    given = {name: inputs.parsed(name, value) for name, value in forwarded.items() if name not in _FIELDS}
    own = {name: value for name, value in body.items() if name in _FIELDS}
    request_id = {"request_id": request.run_id if is_request_id(request.run_id) else None}
    return given | own | request_id


def parse(body: dict[str, Any], schema: Schema) -> ParsedRun:
    """`body`: flattened. Raises InvalidInput."""
    request = decoded(body, _decoder)
    given = {name: value for name, value in body.items() if name not in _FIELDS and value is not None}
    passed = {name: value for name, value in given.items() if name in schema and name not in OTHER_INPUTS}
    turns = chat_messages(request.messages, request.context or [])
    if not turns:
        raise InvalidInput("messages is empty", param="messages")
    model_inputs = passed | _tools(request.tools or []) | {"messages": _raw(turns)}
    refuse_unknown(model_inputs, schema)
    ignored = [name for name in given if name not in passed]
    if bytes(request.state) not in _NOTHING:
        ignored.append("state")
    return ParsedRun(model_inputs, ignored, Run(request.thread_id, request.run_id))


_decoder = msgspec.json.Decoder(RunInput)
_names_decoder = msgspec.json.Decoder(RunNames)


def _tools(tools: Sequence[Tool]) -> dict[str, Any]:
    return {"tools": _raw([_function(tool) for tool in tools])} if tools else {}


def _function(tool: Tool) -> dict[str, Any]:
    has_schema = bytes(tool.parameters) not in _NOTHING
    parameters = tool.parameters if has_schema else {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode_json(value))
