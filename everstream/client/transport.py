"""What both clients take from httpx: their options, and what its errors mean."""

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import httpx

from everstream import __version__
from everstream.client.backoff import Backoff
from everstream.client.errors import RequestRefused, Unavailable
from everstream.client.replies import MAX_REPLY_BYTES
from everstream.client.requests import Addresses
from everstream.client.subscription import Subscription
from everstream.client.topic_subscription import TopicSubscription

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
MAX_EVENT_BYTES = 64 << 20

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
"""Each open answer has a connection; a bound would make the next one wait for the end of another."""


@dataclass(frozen=True, slots=True)
class Options:
    """See `Client`."""

    addresses: Addresses
    headers: Mapping[str, str]
    connect_timeout_s: float
    request_timeout_s: float
    give_up_after_s: float | None
    max_event_bytes: int

    def backoff(self) -> Backoff:
        return Backoff(self.give_up_after_s)

    def subscription(self, generation: str, after: int | None) -> Subscription:
        return Subscription(generation, after, self.backoff(), self.max_event_bytes)

    def topic_subscription(self, topics: str | Sequence[str], options: dict[str, str]) -> TopicSubscription:
        return TopicSubscription(topics, options, self.backoff(), self.max_event_bytes)

    def timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.request_timeout_s, connect=self.connect_timeout_s)

    def all_headers(self, more: Mapping[str, str]) -> httpx.Headers:
        """The caller's headers win, except for those that the protocol needs."""
        return httpx.Headers([("User-Agent", f"everstream-python/{__version__}"), *self._own(more), *more.items()])

    def _own(self, more: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        needed = {name.lower() for name in more}
        return ((name, value) for name, value in self.headers.items() if name.lower() not in needed)


def unavailable(error: Unavailable | httpx.RequestError) -> Unavailable:
    """The error that waiting may heal. Raises RequestRefused, or the error itself, if waiting can't."""
    if isinstance(error, Unavailable):
        return error
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.TooManyRedirects):
        raise error
    if (certificate := _certificate_error(error)) is not None:
        raise RequestRefused(
            "certificate_refused", f"the server's certificate: {certificate.verify_message}"
        ) from error
    code = "timeout" if isinstance(error, httpx.TimeoutException) else "connection_lost"
    found = Unavailable(code, str(error) or type(error).__name__)
    found.__cause__ = error
    return found


def stop_read_timeout(response: httpx.Response) -> None:
    """Let a stream be silent for any time: the request's read timeout was for its response's beginning."""
    timeouts = response.request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        timeouts["read"] = None


def bounded(chunks: Iterable[bytes]) -> bytes:
    """A body's beginning: a proxy may send any amount."""
    body = b""
    for chunk in chunks:
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            break
    return body


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error
