"""What goes wrong, one class per remedy. `code` is for programs, `str()` for people. Pure."""


class EverstreamError(Exception):
    """`status`: of the HTTP response that said so, if there was one. `param`: the input at fault."""

    def __init__(self, code: str, message: str, *, status: int | None = None, param: str | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class RequestRefused(EverstreamError):
    """The server, or a proxy, refuses the request: it has to be changed before it is sent again."""


class Unavailable(EverstreamError):
    """Waiting may help. The client retries, so callers see this only as the cause of `GaveUp`."""

    retry_after_s = 0.0
    """What the server asked for."""


class GaveUp(EverstreamError):
    """`give_up_after_s` is over. The generation may still be running; its cause is the last `Unavailable`."""


class ProducerFenced(EverstreamError):
    """The service has another state of this producer than the publisher: a new epoch has to begin. Publishers begin one
    by themselves."""

    epoch = 0
    """The service's."""


class AnswerFailed(EverstreamError):
    """The generation ended with `failed`. The answer is incomplete."""


class AnswerCancelled(EverstreamError):
    """The generation was stopped. The answer is incomplete."""


class InvalidStream(EverstreamError):
    """The stream can't be understood, or an event is above `max_event_bytes`. Reading it again won't help."""


class AnswerClosed(EverstreamError):
    """`close` was called before the answer was complete."""

    def __init__(self) -> None:
        super().__init__("closed", "the answer was closed before its end")
