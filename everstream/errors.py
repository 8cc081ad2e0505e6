"""Errors, one class per remedy. Each becomes HTTP in one place (`web.error_responses`), and an SSE event in one place
per format (its encoder's `lost`)."""

from collections.abc import Mapping
from typing import TypedDict


class ErrorDetails(TypedDict):
    """`param` names the field at fault."""

    code: str
    message: str
    param: str | None


class ErrorBody(TypedDict):
    error: ErrorDetails


class EverstreamError(Exception):
    """An error reported to the caller: an HTTP status before the first byte, a `failed` event after it."""

    status = 500
    code = "internal_error"
    headers: Mapping[str, str] = {}
    """Of a response that has this error."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code

    def body(self) -> ErrorBody:
        return {"error": {"code": self.code, "message": self.message, "param": self.param}}


class InternalError(EverstreamError):
    """A bug of ours; its stack trace is logged."""

    def __init__(self) -> None:
        super().__init__("something went wrong in the server; its log has the details")


class InvalidInput(EverstreamError):
    """The caller must change the request; `param` names the field."""

    status = 400
    code = "invalid_request"


class BodyTooLarge(InvalidInput):
    status = 413
    code = "body_too_large"


class UnsupportedEncoding(InvalidInput):
    """The body's Content-Encoding."""

    status = 415
    code = "unsupported_encoding"


class UnsupportedMediaType(InvalidInput):
    """The body's Content-Type."""

    status = 415
    code = "unsupported_media_type"


class CrossOrigin(EverstreamError):
    """A page of another origin made a browser send this."""

    status = 403
    code = "cross_origin"


class UnknownHost(EverstreamError):
    """The request was sent to a name that isn't this service's."""

    status = 421
    code = "unknown_host"


class Unauthorized(EverstreamError):
    """The request needs a key, or another one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(EverstreamError):
    """The key, ticket or session is good, but not for this."""

    status = 403
    code = "insufficient_scope"


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"

    def __init__(self, message: str) -> None:
        super().__init__(message, param="model")


class BodyTooSlow(InvalidInput):
    status = 408
    code = "request_timeout"


class NotSupported(InvalidInput):
    """Nothing like this exists here, whatever the request."""

    status = 404
    code = "not_supported"


class UnknownModel(InvalidInput):
    """An address names a model, or a version of one, that is not served here."""

    status = 404
    code = "model_not_found"


class UnknownExample(EverstreamError):
    """An address names no file of the examples."""

    status = 404
    code = "example_not_found"

    def __init__(self) -> None:
        super().__init__("there is no such example; GET /examples/ shows all of them")


class UnknownResponse(InvalidInput):
    """An address names a response of OpenAI's API that was never made, was not to be stored, or has expired."""

    status = 404
    code = "response_not_found"


class UnknownGeneration(EverstreamError):
    """The generation does not exist or has expired; the caller has to start it again."""

    status = 404
    code = "generation_expired"

    def __init__(self) -> None:
        super().__init__("this generation is unknown or has expired; start it again")


class RequestConflict(EverstreamError):
    """The generation that the caller refers to was started by a different request."""

    status = 409
    code = "request_id_conflict"


class GenerationCancelled(EverstreamError):
    """The generation was stopped before it ended."""

    status = 409
    code = "cancelled"


class ClientLeft(EverstreamError):
    """Nobody will get the response."""

    status = 499
    code = "client_left"

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class EntriesLost(EverstreamError):
    """The client saw entries that the log no longer has: Valkey lost acknowledged writes. The rest can be read."""

    status = 400
    code = "entries_lost"


class TryLater(EverstreamError):
    """Nothing was started; the caller may send the same request again, after `retry_after_s`."""

    status = 503
    retry_after_s = 5


class QueueFull(TryLater):
    code = "queue_full"


class LogFull(TryLater):
    code = "log_full"


class TooManyStreams(TryLater):
    code = "too_many_streams"


class ShuttingDown(TryLater):
    """This process was told to stop."""

    code = "shutting_down"


class TooManyBodies(TryLater):
    code = "too_many_bodies"


class CheckTimedOut(TryLater):
    """No engine replied in time whether a prompt fits."""

    code = "check_timed_out"


class ChecksBusy(TryLater):
    code = "checks_busy"


class RateLimited(TryLater):
    """This client has reached one of its limits."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyChecks(TryLater):
    """Too many from one client."""

    status = 429
    code = "too_many_checks"


class TooManyKills(TryLater):
    """Of processes, by request."""

    status = 429
    code = "too_many_kills"


class ModelError(EverstreamError):
    """The model's own code raised an unexpected error; its owner has to fix it."""

    code = "model_error"


class ModelUnavailable(EverstreamError):
    """No engine can load the model; its owner has to fix it."""

    status = 503
    code = "model_failed"


class ModelLoading(TryLater):
    """No engine has published yet what the model takes."""

    code = "model_loading"


class ProviderUnavailable(TryLater):
    """The identity provider, whose keys are needed."""

    code = "identity_provider_unavailable"


class LogUnavailable(TryLater):
    """Valkey does not answer."""

    code = "log_unavailable"


class LogBroken(EverstreamError):
    """Valkey returns an error that waiting does not cure: a bug, or a misconfigured Valkey."""

    code = "log_error"


FAILED_STATUS = {
    **{
        kind.code: kind.status
        for kind in (InvalidInput, ModelError, ModelUnavailable, LogFull, LogBroken, InternalError)
    },
    "context_length_exceeded": InvalidInput.status,
    "engine_crashed": 500,
    "infer_timeout": 504,
    "not_resumable": 500,
    "output_schema_changed": 500,
    "output_too_large": 500,
}
"""The HTTP status of each code with which a generation fails."""


class GenerationFailed(EverstreamError):
    """The generation ended with `failed`. Its code says what the remedy is, and decides the status."""

    def __init__(self, message: str, *, param: str | None, code: str) -> None:
        super().__init__(message, param=param, code=code)
        self.status = FAILED_STATUS.get(code, 500)


class ResponseCut(ConnectionAbortedError):
    """The rest of a response is unavailable. The connection ends without the body's end, so it can't pass for complete.

    An OSError, because gunicorn leaves those to its worker and prints all others with their stack trace.
    """


class ModelDied(Exception):
    """The model's backend is gone for all generations. A model's `infer` raises this when it knows.

    The engine process then exits, as it would after a kill: the log has what was delivered, and the next engine process
    resumes from there.
    """


class ModelRaised(Exception):
    """The model's `infer` raised what would end the process: its `__cause__`, for example a SystemExit."""


class ModelStuck(Exception):
    """A stopped generation's work does not end, so the engine process has to be replaced. The message is for people."""


class ModelLoadError(Exception):
    """The model folder can't be used. The message is one line for people, with the file and line at fault."""
