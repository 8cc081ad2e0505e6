"""What the protocol says about the server and its models. Pure."""

from collections.abc import Iterable
from typing import Literal, TypedDict

from everstream.apis.inferless.encoders import VERSION
from everstream.contract.schema import Field, Schema
from everstream.log.entries import encode_json

EXTENSIONS = ("binary_tensor_data", "generate", "model_repository(index)")
PLATFORM = "everstream"


class ServerAbout(TypedDict):
    name: str
    version: str
    extensions: list[str]


class TensorAbout(TypedDict):
    """-1 is a dimension of any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelAbout(TypedDict):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorAbout]
    outputs: list[TensorAbout]


class ModelInIndex(TypedDict):
    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


def server(version: str) -> ServerAbout:
    return {"name": PLATFORM, "version": version, "extensions": list(EXTENSIONS)}


def model(name: str, schema: Schema) -> ModelAbout:
    """`outputs` is empty, because a model declares only its inputs."""
    tensors = [_tensor(each, field) for each, field in schema.items()]
    return {"name": name, "versions": [VERSION], "platform": PLATFORM, "inputs": tensors, "outputs": []}


def _tensor(name: str, field: Field) -> TensorAbout:
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
