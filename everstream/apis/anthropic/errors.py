"""Anthropic's form of errors: one body, in a response or as an event. Pure. Called by `routes` and `events`."""

from everstream.apis.anthropic.message import Error, ErrorBody, ErrorDetails
from everstream.errors import EverstreamError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(error: EverstreamError, request_id: str | None = None) -> ErrorBody:
    details = ErrorDetails(error.code, error.param)
    return ErrorBody(Error(_type(error.status), error.message, details), request_id)


def _type(status: int) -> str:
    """By the HTTP status that the error has or would have had."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
