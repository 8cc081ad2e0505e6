"""What `GET /openapi.json` says about these routes."""

from typing import Annotated, Any, Literal, TypedDict

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.inferless.binary import HEADER as JSON_SIZE
from everstream.apis.inferless.metadata import ModelAbout, ModelInIndex, ServerAbout
from everstream.apis.inferless.outputs import Tensor
from everstream.apis.inferless.requests import IndexBody, InferBody
from everstream.errors import UnknownModel, UnsupportedEncoding
from everstream.web.description import (
    BODY,
    MODEL,
    READ,
    RESUME,
    START,
    WHOLE,
    Answer,
    ApiDescription,
    Description,
    Fields,
    all_inputs,
    failures,
)
from everstream.web.shared_types import (
    OWN_EVENTS,
    Cancelled,
    CompactQuery,
    Failed,
    KeyHeader,
    ResumeHeader,
    ResumeQuery,
    ServedName,
)


class ErrorBody(TypedDict):
    """`param` names the field at fault."""

    # Clients of this protocol expect a string.

    error: str
    code: str
    param: str | None


class ModelPath(Struct):
    name: ServedName
    version: Annotated[Literal["1"], Meta(description="the only one")]


class SizeHeader(Struct, rename={"size": JSON_SIZE}):
    size: (
        Annotated[int, Meta(description="with binary tensor data after the JSON: the size of the JSON", ge=0)]
        | UnsetType
    ) = UNSET


class InferResponse(Struct):
    id: str
    model_name: str
    model_version: Literal["1"]
    outputs: list[Tensor]


class Generated(Struct):
    """The whole text."""

    model_name: str
    model_version: Literal["1"]
    text_output: str
    id: str
    done: Literal[True]
    finish_reason: str
    usage: dict[str, Any] | None
    choices: list[dict[str, Any]] | UnsetType = UNSET


class GeneratedPiece(Struct):
    """A piece of the text. The last one, which is `done`, says how it ended."""

    model_name: str
    model_version: Literal["1"]
    text_output: str
    done: bool
    finish_reason: str | UnsetType = UNSET
    usage: dict[str, Any] | UnsetType | None = UNSET
    choices: list[dict[str, Any]] | UnsetType = UNSET


class GenerateFailed(Struct):
    error: str
    code: str


class GenerateBody(Struct):
    """The model's inputs are given beside these fields or in `parameters`. `text_input` is the model's prompt."""

    text_input: str | None = None
    parameters: dict[str, Any] | None = None
    id: str | None = None


class Live(Struct):
    live: Literal[True]


class ServerReady(Struct):
    ready: bool


class ModelReady(Struct):
    name: str
    ready: bool


_SEEN = Answer("The client has seen the last event.")
_BODY = (*BODY, *failures(UnsupportedEncoding))
_MODEL = (*MODEL, *READ, *failures(UnknownModel))
_STREAMED = (*_BODY, *_MODEL, *START, *RESUME)
_HEADERS = (KeyHeader, ResumeHeader)
_QUERY = Fields((ResumeQuery, CompactQuery))
_GENERATE = Fields((GenerateBody,), all_inputs, is_open=True)
_PIECES = {
    "open": GeneratedPiece,
    "message": GeneratedPiece,
    "done": GeneratedPiece,
    "cancelled": GenerateFailed,
    "failed": GenerateFailed,
}
DESCRIPTION = ApiDescription(
    "The Open Inference Protocol, as KServe's, Triton's and Inferless's clients speak it.",
    {
        "infer": Description(
            "Run a model on tensors",
            {
                200: Answer(
                    "The outputs as tensors: whole, or as events if the client prefers them, or has no preference and "
                    "the model streams.",
                    InferResponse,
                    OWN_EVENTS | {"message": InferResponse, "cancelled": Cancelled, "failed": Failed},
                ),
                204: _SEEN,
            },
            failures=(*_STREAMED, *WHOLE),
            query=_QUERY,
            headers=(*_HEADERS, SizeHeader),
            body=InferBody,
            details="The body may have a Content-Encoding, `gzip` or `deflate`.",
        ),
        "generate": Description(
            "Generate text",
            {200: Answer("The text.", Generated)},
            failures=(*_BODY, *_MODEL, *START, *WHOLE),
            headers=(KeyHeader,),
            body=_GENERATE,
        ),
        "generate_stream": Description(
            "Generate text, in pieces",
            {200: Answer("The pieces.", events=_PIECES), 204: _SEEN},
            failures=_STREAMED,
            query=_QUERY,
            headers=_HEADERS,
            body=_GENERATE,
        ),
        "show_model": Description(
            "What a model takes", {200: Answer("Its inputs, as tensors.", ModelAbout)}, failures=_MODEL
        ),
        "model_ready": Description(
            "Whether a model is ready",
            {200: Answer("It is.", ModelReady), 503: Answer("It is not.", ModelReady)},
            failures=_MODEL,
        ),
        "server": Description("About this server", {200: Answer("Its name and extensions.", ServerAbout)}),
        "live": Description("Whether this process is alive", {200: Answer("It is.", Live)}),
        "ready": Description(
            "Whether every model is ready",
            {200: Answer("They are.", ServerReady), 503: Answer("Some model is not.", ServerReady)},
            failures=READ,
        ),
        "index": Description(
            "The models and their states",
            {200: Answer("The models.", list[ModelInIndex])},
            failures=(*_BODY, *READ),
            body=IndexBody,
            body_is_optional=True,
        ),
    },
    ErrorBody,
    ModelPath,
)
