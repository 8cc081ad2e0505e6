"""Errors, one class per remedy. Each becomes HTTP, or an SSE event, in one place: `routes` and `sse`."""

from typing import Any


class EverstreamError(Exception):
    """An error that a caller is told of: an HTTP status before the first byte, a `failed` event after it."""

    status = 500
    code = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "param": self.param}}


class InvalidInput(EverstreamError):
    """The caller must change the request; `param` names the field."""

    status = 400
    code = "invalid_request"


class BodyTooLarge(InvalidInput):
    status = 413
    code = "body_too_large"


class BodyTooSlow(InvalidInput):
    status = 408
    code = "request_timeout"


class UnknownGeneration(EverstreamError):
    """There is no such generation, or no longer: it has to be started again."""

    status = 404
    code = "generation_expired"

    def __init__(self) -> None:
        super().__init__("this generation is unknown or has expired; start it again")


class RequestConflict(EverstreamError):
    """What the caller refers to was started by another request."""

    status = 409
    code = "request_id_conflict"


class EntriesLost(EverstreamError):
    """The client saw entries that the log has no longer: Valkey lost acknowledged writes. What it has can be read."""

    status = 400
    code = "entries_lost"


class TryLater(EverstreamError):
    """Nothing was started; the same request may be sent again."""

    status = 503


class QueueFull(TryLater):
    code = "queue_full"


class LogFull(TryLater):
    code = "log_full"


class TooManyStreams(TryLater):
    code = "too_many_streams"


class TooManyBodies(TryLater):
    code = "too_many_bodies"


class CheckTimedOut(TryLater):
    """No engine said in time whether a prompt fits."""

    code = "check_timed_out"


class ChecksBusy(TryLater):
    code = "checks_busy"


class TooManyChecks(TryLater):
    """Of one client."""

    status = 429
    code = "too_many_checks"


class ModelError(EverstreamError):
    """The model's own code raised what it should not: its owner has to mend it."""

    code = "model_error"


class ModelUnavailable(EverstreamError):
    """No engine can load the model: its owner has to mend it."""

    status = 503
    code = "model_failed"


class LogUnavailable(TryLater):
    """Valkey does not answer."""

    code = "log_unavailable"


class LogBroken(EverstreamError):
    """Valkey answers with an error that waiting does not heal: a bug, or a wrong setting of its owner's."""

    code = "log_error"


class ResponseCut(ConnectionAbortedError):
    """The rest of a response can't be had; the connection ends without the body's end, so that it can't pass for whole.

    An OSError, because gunicorn leaves those to its worker, and prints all others with their stack.
    """


class ModelDied(Exception):
    """What runs the model is gone for all generations. A model's `infer` raises it when it knows.

    The engine process then ends, as it would have after a kill: the log has what was delivered, and the next engine
    process goes on from there.
    """


class ModelLoadError(Exception):
    """A model folder that can't be used. The message is one line for people, with the file and line at fault."""
