"""What `GET /openapi.json` says about these routes, and what a request may be."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from everstream.errors import ErrorBody, TooManyKills
from everstream.web.description import BODY, READ, Answer, ApiDescription, Description, Failure, failures
from everstream.web.shared_types import ServedName

What = Literal["worker", "engine"]
NO_ENGINE = "no_engine"


class Kill(Struct, forbid_unknown_fields=True):
    """`worker`: the web process that answers. `engine`: the one that runs most, of any model or of this one."""

    what: What
    model: ServedName | None = None


class Killing(Struct):
    """`name`: the engine's."""

    what: What
    name: str | UnsetType = UNSET


class Kills(Struct):
    kills: list[What]


DESCRIPTION = ApiDescription(
    "Faults at the press of a button, for demonstrations.",
    {
        "show": Description("What can be killed", {200: Answer("The kinds.", Kills)}),
        "kill": Description(
            "Kill a process with SIGKILL",
            {202: Answer("A worker dies after this response, an engine within a second.", Killing)},
            failures=(
                *BODY,
                *READ,
                *failures(TooManyKills),
                Failure(503, NO_ENGINE, may_retry=True),
            ),
            body=Kill,
        ),
    },
    ErrorBody,
)
