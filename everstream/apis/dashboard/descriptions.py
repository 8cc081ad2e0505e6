"""What `GET /openapi.json` says about these routes."""

from everstream.apis.dashboard.history import Shown
from everstream.apis.dashboard.sampler import Away, PastPoints
from everstream.errors import ErrorBody, TooManyStreams
from everstream.web.description import Answer, ApiDescription, Description, failures
from everstream.web.shared_types import Busy

DESCRIPTION = ApiDescription(
    "Live figures of the whole service, for operators.",
    {
        "page": Description("The figures as a page", {200: Answer("The page.", media="text/html")}),
        "events": Description(
            "The figures, about once a second, without an end",
            {
                200: Answer(
                    "The figures. `history` comes first: what this process has seen of the last five minutes. `away`: "
                    "the log can't be read. Over a limit, only `busy` if the client accepts `text/event-stream`.",
                    events={"history": PastPoints, "message": Shown, "away": Away, "busy": Busy},
                )
            },
            failures=failures(TooManyStreams),
        ),
    },
    ErrorBody,
)
