"""Errors as OpenAI's clients expect them. Pure."""

from typing import TypedDict

from everstream.errors import EverstreamError

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""Any other status below 500 is an `invalid_request_error`."""


class ErrorDetails(TypedDict):
    """`param` names the field at fault."""

    code: str
    message: str
    param: str | None
    type: str


class OpenAIError(TypedDict):
    error: ErrorDetails


def error_body(error: EverstreamError) -> OpenAIError:
    """The body of a response, or the data of an event."""
    kind = "server_error" if error.status >= 500 else TYPES.get(error.status, "invalid_request_error")
    return {"error": {**error.body()["error"], "type": kind}}
