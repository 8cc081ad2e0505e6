"""What `GET /openapi.json` says about these routes."""

from typing import Annotated

from msgspec import Meta, Struct

from everstream.errors import ErrorBody, TooManyStreams, UnknownExample
from everstream.web.description import Answer, ApiDescription, Description, failures

_FAILURES = failures(TooManyStreams, UnknownExample)


class ExamplePath(Struct):
    name: Annotated[str, Meta(description="an example's name, or that of a file beside it")]


DESCRIPTION = ApiDescription(
    "Examples of what topics are for: pages that use `EventSource` and nothing else.",
    {
        "index": Description(
            "All examples", {200: Answer("The page.", media="text/html")}, failures=failures(TooManyStreams)
        ),
        "page": Description("One example", {200: Answer("The page.", media="text/html")}, failures=_FAILURES),
        "source": Description(
            "A page or a publisher, to read", {200: Answer("The file.", media="text/plain")}, failures=_FAILURES
        ),
    },
    ErrorBody,
    ExamplePath,
)
