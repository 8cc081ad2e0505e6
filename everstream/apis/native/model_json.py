"""A served model as JSON, for `GET /models` and the page's forms. Pure. Called by `routes`."""

from typing import Any, Literal, TypedDict

import msgspec

from everstream.contract.schema import Field
from everstream.web.models import ServedModel
from everstream.web.readiness import Readiness


class ModelJson(TypedDict):
    """`is_streaming` is null, and `inputs` empty, while it is not known what the model takes. `message`: what it waits
    for, or why it has failed; then it is `error`, too."""

    name: str
    state: Literal["ready", "loading", "failed"]
    error: str | None
    message: str | None
    is_streaming: bool | None
    inputs: dict[str, Field]


def model_json(readiness: Readiness, model: ServedModel | None) -> dict[str, Any]:
    """`model` None: what it takes is not known yet."""
    return {
        "name": readiness.model,
        "state": readiness.now.state,
        "error": readiness.now.message if readiness.now.state == "failed" else None,
        "message": readiness.now.news or None,
        "is_streaming": model.is_streaming if model else None,
        "inputs": {name: _input(field) for name, field in model.inputs.items()} if model else {},
    }


def _input(field: Field) -> dict[str, Any]:
    # The encoder omits what has its default value.
    always = {"datatype": field.datatype, "shape": field.shape, "required": field.required}
    return {**always, **msgspec.to_builtins(field)}
