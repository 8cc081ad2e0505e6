"""The bodies of `infer` and `generate` as model inputs. Pure. Called by `routes`.

Names that the model's schema lacks are ignored, because clients send parameters that are meant for their own server.
"""

from collections.abc import Sized
from typing import Any

import msgspec

from everstream.apis.inferless import binary
from everstream.apis.inferless.tensors import InputTensor, input_value
from everstream.contract import inputs
from everstream.contract.schema import STRINGS, Schema
from everstream.errors import InvalidInput

MAX_ID_CHARS = 256
_NULL = msgspec.Raw(b"null")
_BINARY_OUTPUT = ("binary_data", "binary_data_output")


class ParsedRequest(msgspec.Struct, frozen=True):
    """`values` are not checked yet. `outputs`: the names of the tensors to answer with; empty: all.

    `wants_binary`: it asks for binary outputs, so its client reads one response, not a stream.
    """

    values: dict[str, Any]
    id: str = ""
    outputs: tuple[str, ...] = ()
    wants_binary: bool = False


class RequestedOutput(msgspec.Struct, frozen=True):
    name: str
    parameters: dict[str, msgspec.Raw] | None = None


class InferBody(msgspec.Struct, frozen=True):
    """`parameters` are inputs too. `outputs`: the names of those to answer with."""

    id: str | None = None
    inputs: list[InputTensor] | None = None
    parameters: dict[str, msgspec.Raw] | None = None
    outputs: list[RequestedOutput] | None = None


class IndexBody(msgspec.Struct, frozen=True):
    """`ready`: list only the models that are ready."""

    ready: bool | None = None


def infer(body: bytes, json_size: str | None, schema: Schema) -> ParsedRequest:
    """`json_size`: the value of the header `binary.HEADER`. Raises InvalidInput."""
    text, data = (body, memoryview(b"")) if json_size is None else binary.split(body, json_size)
    given: InferBody = _decoded(text, InferBody)
    parameters, outputs = given.parameters or {}, given.outputs or []
    _check_count("inputs", given.inputs or [])
    _check_count("outputs", outputs)
    _check_count("parameters", parameters)
    asked = [name for each in (parameters, *(output.parameters or {} for output in outputs)) for name in each]
    return ParsedRequest(
        # A tensor is more specific than a parameter of the same name.
        _known(parameters, schema) | _tensor_values(given.inputs or [], data, schema),
        _checked_id(given.id),
        tuple(output.name for output in outputs),
        any(name in _BINARY_OUTPUT for name in asked),
    )


def generate(body: bytes, schema: Schema) -> ParsedRequest:
    """Names outside `parameters` win over those in it. Raises InvalidInput."""
    given: dict[str, msgspec.Raw] = _decoded(body, dict[str, msgspec.Raw])
    parameters = _decoded(given.pop("parameters", _NULL), dict[str, msgspec.Raw] | None, "parameters") or {}
    _check_count("parameters", parameters)
    _check_count("body", given)
    text = inputs.parsed("text_input", given.pop("text_input", _NULL))
    request_id = _decoded(given.pop("id", _NULL), str | None, "id")
    values = _known(parameters, schema) | _known(given, schema)
    if text is not None:
        values[_text_name(schema)] = text
    return ParsedRequest(values, _checked_id(request_id))


def ready_only(body: bytes) -> bool:
    """Of the body of `repository/index`, which may be empty. Raises InvalidInput."""
    index: IndexBody = _decoded(body or b"{}", IndexBody)
    return bool(index.ready)


def _decoded(text: bytes | msgspec.Raw, kind: Any, name: str = "body") -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name} can't be read: {error}"[:200], param=name) from None


def _check_count(name: str, given: Sized) -> None:
    if len(given) > inputs.MAX_NAMES:
        raise InvalidInput(f"{name} has {len(given)} items; at most {inputs.MAX_NAMES} are allowed", param=name)


def _checked_id(given: str | None) -> str:
    if given is None:
        return ""
    if len(given) > MAX_ID_CHARS or not inputs.is_text(given):
        raise InvalidInput(f"id must be text of at most {MAX_ID_CHARS} characters", param="id")
    return given


def _known(given: dict[str, msgspec.Raw], schema: Schema) -> dict[str, Any]:
    return {name: inputs.parsed(name, given[name]) for name in schema if name in given}


def _tensor_values(tensors: list[InputTensor], data: memoryview, schema: Schema) -> dict[str, Any]:
    values: dict[str, Any] = {}
    binary_data = binary.TensorData(data)
    for tensor in tensors:
        size, name = tensor.binary_size, tensor.name
        own = None if size is None else binary_data.take(name, size)
        if name not in schema:
            continue
        if name in values:
            raise InvalidInput(f"{name} is given twice in inputs", param=name)
        if tensor.parameters and tensor.parameters.shared_memory_region is not None:
            raise InvalidInput(f"{name} is in shared memory, which is not supported here; send its data", param=name)
        values[name] = input_value(tensor, schema[name], own)
    binary_data.end()
    return values


def _text_name(schema: Schema) -> str:
    """The input that `text_input` is for."""
    required = [name for name, field in schema.items() if field.required and field.datatype in STRINGS]
    for name in ("text_input", "prompt", *required):
        if name in schema:
            return name
    raise InvalidInput(
        f"this model has no input for text_input; its inputs are {', '.join(schema)}", param="text_input"
    )
