"""The one place where errors become HTTP responses, in the format of the API that was called. Used by `factory`."""

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Flask, Response, current_app, request
from valkey.exceptions import ValkeyError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from everstream.errors import (
    BodyTooLarge,
    EverstreamError,
    InternalError,
    LogBroken,
    LogUnavailable,
    TryLater,
    Unauthorized,
)
from everstream.log.entries import encode_json
from everstream.log.retryable import UNAVAILABLE
from everstream.web import sse, throttled_logging
from everstream.web.api import Api, api_of
from everstream.web.streaming import event_stream, is_eventsource

logger = logging.getLogger(__name__)

ErrorResponse = tuple[Mapping[str, Any], int, dict[str, str]] | Response


def register(app: Flask, apis: Sequence[Api]) -> None:
    """Handle anything that a request may raise, even before a route is found."""
    responses = _ErrorResponses(apis)
    app.register_error_handler(EverstreamError, responses.of_error)
    for kind in UNAVAILABLE:
        app.register_error_handler(kind, responses.of_unavailable_log)
    app.register_error_handler(ValkeyError, responses.of_broken_log)
    app.register_error_handler(HTTPException, responses.of_http_error)
    app.register_error_handler(Exception, responses.of_bug)


def _come_back(error: TryLater) -> list[bytes]:
    """`busy` says why; an EventSource that doesn't listen for it ignores it."""
    earliest_ms = 1000 * error.retry_after_s
    retry_ms = random.randint(earliest_ms, 2 * earliest_ms)  # noqa: S311
    data = encode_json({"code": error.code, "message": error.message, "retry_ms": retry_ms})
    return [sse.retry(retry_ms), sse.event("busy", data)]


class _ErrorResponses:
    def __init__(self, apis: Sequence[Api]) -> None:
        self._apis = apis

    def of_error(self, error: EverstreamError) -> ErrorResponse:
        if isinstance(error, Unauthorized):
            return self._body(error), error.status, {"WWW-Authenticate": 'Bearer realm="everstream"'}
        if not isinstance(error, TryLater):
            return self._body(error), error.status, dict(error.headers)
        if is_eventsource():
            # Any status but 200 closes an EventSource for good; after this one it reconnects.
            return event_stream(iter(_come_back(error)))
        return self._body(error), error.status, {"Retry-After": str(error.retry_after_s)}

    def of_unavailable_log(self, error: Exception) -> ErrorResponse:
        throttled_logging.warning(logger, "Valkey does not answer: %s", error)
        return self.of_error(
            LogUnavailable("the log (Valkey) does not answer or does not accept writes; try again later")
        )

    def of_broken_log(self, error: ValkeyError) -> ErrorResponse:
        throttled_logging.warning(logger, "Valkey rejected a command: %s", error)
        return self.of_error(LogBroken(f"the log (Valkey) rejected a command: {error}"))

    def of_http_error(self, error: HTTPException) -> ErrorResponse:
        """Flask's and Werkzeug's own errors: 404, 405, 413 and so on."""
        if isinstance(error, RequestEntityTooLarge):
            most = current_app.config["MAX_CONTENT_LENGTH"]
            return self.of_error(BodyTooLarge(f"the body is over {most} bytes", param="body"))
        converted = EverstreamError(error.description or error.name, code=error.name.lower().replace(" ", "_"))
        converted.status = error.code or converted.status
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return self._body(converted), converted.status, headers

    def of_bug(self, error: Exception) -> ErrorResponse:
        logger.exception("a request failed", exc_info=error)
        return self.of_error(InternalError())

    def _body(self, error: EverstreamError) -> Mapping[str, Any]:
        api = api_of(request.path, self._apis)
        return api.error_body(error) if api else error.body()
