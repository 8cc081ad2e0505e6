"""A served model as JSON, for `GET /models` and the page's forms. Pure. Called by `routes`."""

from typing import Any

import msgspec

from everstream.contract.schema import Field
from everstream.web.models import ServedModel
from everstream.web.readiness import Readiness


def model_json(readiness: Readiness, model: ServedModel | None) -> dict[str, Any]:
    """`model` None: what it takes is not known yet."""
    return {
        "name": readiness.model,
        "state": readiness.state,
        "error": readiness.message if readiness.state == "failed" else None,
        "is_streaming": model.is_streaming if model else None,
        "inputs": {name: _input(field) for name, field in model.inputs.items()} if model else {},
    }


def _input(field: Field) -> dict[str, Any]:
    # The encoder omits what has its default value.
    always = {"datatype": field.datatype, "shape": field.shape, "required": field.required}
    return {**always, **msgspec.to_builtins(field)}
