"""What `GET /openapi.json` says about these routes."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.ag_ui.events import AnyEvent
from everstream.apis.ag_ui.request_types import RunInput
from everstream.errors import ErrorBody, UnknownGeneration
from everstream.web.description import ANSWER, RESUME, Answer, ApiDescription, Description, Fields, failures
from everstream.web.posts import ADDED_HEADERS
from everstream.web.shared_types import POST_HEADERS, RequestIdHeader, ResumeHeader, ResumeQuery


class JoinQuery(Struct, rename="camel"):
    run_id: Annotated[str, Meta(description="the client's own id of the run, of at least 16 characters")]
    offset: Annotated[Literal["-1"], Meta(description="the beginning")] | UnsetType = UNSET


_EVENTS = {"message": (AnyEvent,)}
_SEEN = Answer("The client has seen the run's last event.")
DESCRIPTION = ApiDescription(
    "AG-UI's protocol 1.0, for TanStack AI, CopilotKit and other clients of it.",
    {
        "run_agent": Description(
            "Run the model as an agent",
            {200: Answer("The events of the run.", events=_EVENTS), 204: _SEEN},
            failures=ANSWER,
            query=Fields((ResumeQuery,)),
            headers=POST_HEADERS,
            body=Fields((RunInput,), is_open=True),
        ),
        "join_run": Description(
            "Follow or resume a run",
            {200: Answer("The events.", events=_EVENTS), 204: _SEEN},
            failures=(*RESUME, *failures(UnknownGeneration)),
            query=Fields((JoinQuery, ResumeQuery)),
            headers=(RequestIdHeader, ResumeHeader),
        ),
    },
    ErrorBody,
    headers=ADDED_HEADERS,
    formats=(_EVENTS,),
)
