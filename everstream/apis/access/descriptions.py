"""What `GET /openapi.json` says about these routes, and what a request may be."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from everstream.errors import ErrorBody, InvalidInput, Unauthorized, UnknownGeneration
from everstream.log.api_keys import Scope
from everstream.log.topic_names import MAX_CHARS
from everstream.web.access.signed import MAX_SHARE_S, TICKET_S
from everstream.web.description import BODY, READ, Answer, ApiDescription, Description, failures
from everstream.web.sse import GENERATION_ID

GenerationId = Annotated[str, Meta(pattern=f"^{GENERATION_ID}$")]


class SignIn(Struct, forbid_unknown_fields=True):
    """`key`: an API key, or a token of the identity provider. It may come as `Authorization` instead."""

    key: Annotated[str, Meta(max_length=6000)] | None = None


class SessionState(Struct):
    """`required`: whether this service has keys. `name` and `scopes`: of the key that the session stands for."""

    required: bool
    signed_in: bool
    name: str | UnsetType = UNSET
    scopes: list[Scope] | UnsetType = UNSET


Topics = Annotated[
    list[Annotated[str, Meta(max_length=MAX_CHARS)]],
    Meta(min_length=1, max_length=10, description="names and patterns"),
]


class TicketRequest(Struct, forbid_unknown_fields=True):
    """`start`: for one `GET /stream`. `read`: for the events of the `generation`. `follow`: for the `topics`."""

    access: Literal["start", "read", "follow"]
    generation: GenerationId | None = None
    topics: Topics | None = None


class ShareRequest(Struct, forbid_unknown_fields=True):
    """Of a `generation`, or of `topics`. The link expires after this time, or with the generation if that is sooner."""

    generation: GenerationId | None = None
    topics: Topics | None = None
    expires_in_s: Annotated[int, Meta(ge=1, le=MAX_SHARE_S)] = 86_400


class Issued(Struct):
    """`url`: where to use it; more parameters may follow."""

    ticket: str
    expires_in_s: int
    url: str


_ISSUE = (*BODY, *READ, *failures(InvalidInput))

DESCRIPTION = ApiDescription(
    "Sessions, tickets and share links: what a browser uses instead of a key.",
    {
        "show_session": Description(
            "Whether keys are needed, and who is signed in", {200: Answer("Both.", SessionState)}
        ),
        "sign_in": Description(
            "Sign in with a key: the response sets a cookie",
            {200: Answer("Signed in.", SessionState, headers={"Set-Cookie": "The session."})},
            failures=(*BODY, *READ, *failures(Unauthorized)),
            body=SignIn,
            body_is_optional=True,
        ),
        "sign_out": Description("Sign out", {200: Answer("The cookie is gone.", SessionState)}),
        "issue_ticket": Description(
            "Make a ticket for one EventSource",
            {201: Answer(f"A ticket, to be used within {TICKET_S} s.", Issued)},
            failures=(*_ISSUE, *failures(UnknownGeneration)),
            body=TicketRequest,
            details="An EventSource sends no headers, so it can't send a key. It reconnects with the same ticket as "
            "long as the generation lives.",
        ),
        "share": Description(
            "Make a link for reading a generation, or following topics",
            {201: Answer("The link.", Issued)},
            failures=(*_ISSUE, *failures(UnknownGeneration)),
            body=ShareRequest,
        ),
    },
    ErrorBody,
)
