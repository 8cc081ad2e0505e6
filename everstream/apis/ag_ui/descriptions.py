"""What `GET /openapi.json` says about these routes."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.apis.ag_ui.events import AnyEvent
from everstream.apis.ag_ui.request_types import RunInput
from everstream.errors import ErrorBody, InvalidInput, UnknownGeneration
from everstream.web.description import ANSWER, READ, RESUME, Answer, ApiDescription, Description, Fields, failures
from everstream.web.posts import ADDED_HEADERS
from everstream.web.shared_types import POST_HEADERS, RequestIdHeader, ResumeHeader, ResumeQuery, Stopped


class RunQuery(Struct, rename="camel"):
    run_id: Annotated[str, Meta(description="the client's own id of the run, of at least 16 characters", min_length=1)]


class JoinQuery(RunQuery, rename="camel"):
    offset: Annotated[Literal["-1"], Meta(description="the beginning")] | UnsetType = UNSET


_EVENTS = {"message": (AnyEvent,)}
_GONE = Answer("The client has seen that the run is no longer there.")
DESCRIPTION = ApiDescription(
    "AG-UI's protocol 1.0, for TanStack AI, CopilotKit and other clients of it.",
    {
        "run_agent": Description(
            "Run the model as an agent",
            {200: Answer("The events of the run.", events=_EVENTS), 204: _GONE},
            failures=ANSWER,
            query=Fields((ResumeQuery,)),
            headers=POST_HEADERS,
            body=Fields((RunInput,), is_open=True),
        ),
        "join_run": Description(
            "Follow or resume a run",
            {200: Answer("The events.", events=_EVENTS), 204: _GONE},
            failures=(*RESUME, *failures(UnknownGeneration)),
            query=Fields((JoinQuery, ResumeQuery)),
            headers=(RequestIdHeader, ResumeHeader),
        ),
        "stop_run": Description(
            "Stop a run",
            {200: Answer("It had ended.", Stopped), 202: Answer("It will stop.", Stopped)},
            failures=(*READ, *failures(InvalidInput, UnknownGeneration)),
            query=Fields((RunQuery,)),
            headers=(RequestIdHeader,),
        ),
    },
    ErrorBody,
    headers=ADDED_HEADERS,
    formats=(_EVENTS,),
)
