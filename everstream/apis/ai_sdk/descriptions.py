"""What `GET /openapi.json` says about these routes."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.ai_sdk.chunks import AnyChunk
from everstream.apis.ai_sdk.request_types import ChatRequest
from everstream.apis.ai_sdk.requests import OTHER_INPUTS
from everstream.contract.schema import Schema
from everstream.errors import ErrorBody, UnknownGeneration
from everstream.web.description import (
    ANSWER,
    READ,
    RESUME,
    Answer,
    ApiDescription,
    Description,
    Fields,
    failures,
)
from everstream.web.posts import ADDED_HEADERS
from everstream.web.shared_types import OPTIONS, POST_HEADERS, RequestIdHeader, ResumeHeader, ResumeQuery, Stopped


class Path(Struct):
    run: Annotated[str, Meta(description="the run's id, or its chat's for the newest run")]


class IndexQuery(Struct, rename={"start_index": "startIndex"}):
    start_index: (
        Annotated[
            str,
            Meta(
                description="how many chunks the client has seen; negative: how many before the last to begin with",
                pattern="^-?(?:0|[1-9][0-9]{0,8})$",
            ),
        ]
        | UnsetType
    ) = UNSET


def _of_chat(schema: Schema) -> Schema | None:
    others = (*OTHER_INPUTS, "system", "messages")
    own = {name: field for name, field in schema.items() if name not in others}
    return own if "messages" in schema else None


_EVENTS = {"message": (AnyChunk, "[DONE]")}
_HEADERS = {
    "x-vercel-ai-ui-message-stream": "The version of the protocol, `v1`.",
    "x-workflow-run-id": "The run's id, which is the generation's.",
}
_TAIL = {"x-workflow-stream-tail-index": "The number of the last chunk so far, from 0; only with `startIndex`."}
DESCRIPTION = ApiDescription(
    "The UI message stream protocol of Vercel's AI SDK, for `useChat`.",
    {
        "chat": Description(
            "Answer a chat",
            {
                200: Answer("The chunks of the message.", events=_EVENTS, headers=_HEADERS),
                204: Answer("The client has seen the message's last event."),
            },
            failures=ANSWER,
            query=Fields((ResumeQuery,)),
            headers=POST_HEADERS,
            body=Fields((*OPTIONS, ChatRequest), _of_chat, is_open=True),
        ),
        "stream": Description(
            "Follow or resume an answer",
            {
                200: Answer("The chunks, from `startIndex` on.", events=_EVENTS, headers=_HEADERS | _TAIL),
                204: Answer("Nothing is left; without `startIndex`: the chat has no answer that is being written."),
            },
            failures=(*RESUME, *failures(UnknownGeneration)),
            query=Fields((IndexQuery, ResumeQuery)),
            headers=(RequestIdHeader, ResumeHeader),
        ),
        "stop": Description(
            "Stop an answer",
            {200: Answer("It had ended.", Stopped), 202: Answer("It will stop.", Stopped)},
            failures=(*READ, *failures(UnknownGeneration)),
            headers=(RequestIdHeader,),
        ),
    },
    ErrorBody,
    path=Path,
    headers=ADDED_HEADERS,
    formats=(_EVENTS,),
)
