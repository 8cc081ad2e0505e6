"""What the protocol says about the server and its models. Pure."""

from collections.abc import Iterable
from typing import Any

from everstream.apis.inferless.encoders import VERSION
from everstream.contract.schema import Field, Schema
from everstream.log.entries import encode_json

EXTENSIONS = ("binary_tensor_data", "generate", "model_repository(index)")
PLATFORM = "everstream"


def server(version: str) -> dict[str, Any]:
    return {"name": PLATFORM, "version": version, "extensions": list(EXTENSIONS)}


def model(name: str, schema: Schema) -> dict[str, Any]:
    """`outputs` is empty, because a model declares only its inputs."""
    tensors = [_tensor(each, field) for each, field in schema.items()]
    return {"name": name, "versions": [VERSION], "platform": PLATFORM, "inputs": tensors, "outputs": []}


def _tensor(name: str, field: Field) -> dict[str, Any]:
    return {"name": name, "datatype": field.wire_datatype, "shape": field.shape}


def index(names: Iterable[str], ready: set[str], *, ready_only: bool) -> bytes:
    """Triton's index of the model repository."""
    return encode_json(
        [
            {
                "name": name,
                "version": VERSION,
                "state": "READY" if name in ready else "UNAVAILABLE",
                "reason": "" if name in ready else "no engine has loaded it",
            }
            for name in names
            if name in ready or not ready_only
        ]
    )
