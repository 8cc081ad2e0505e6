"""What one client may use: of requests and tokens a minute, by all workers together. Called by `submission` and
`credentials`.

A client is an owner, or the address of someone without a key. Its limits are those of its key, else of the settings.
Requests are counted by `limits`, over a sliding minute, for each key. Tokens are counted by the log as they are
generated, for each owner, so a client may exceed its limit by what it has under way. What it may have running, waiting
and stored is checked where that is kept: `log/lua/submit.lua`.
"""

import math
import time
from typing import NamedTuple

import limits
import msgspec
from flask import Response, g
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from everstream.errors import RateLimited
from everstream.log.api_keys import KeyLimits
from everstream.log.web_log import WebLog
from everstream.settings import Settings
from everstream.web.access.principal import Principal
from everstream.web.clients import client_key

MINUTE_S = 60
REFUSALS_PER_MINUTE = 60
"""Requests with a bad key, ticket or token that an address may send."""
REFUSED_FOR_S = 5.0
"""How long a worker goes without counting those of an address that has sent more."""
MAX_REFUSED = 10_000


class Rate(NamedTuple):
    """How much of a limit is left, for the response's headers. `reset_s`: until there is more."""

    kind: str
    limit: int
    remaining: int
    reset_s: float


class ClientLimits:
    """One per web process."""

    def __init__(self, settings: Settings, web_log: WebLog) -> None:
        self._log = web_log
        names = KeyLimits.__struct_fields__
        self._defaults = KeyLimits(**{name: getattr(settings, f"client_{name}") or None for name in names})
        storage = RedisStorage(
            "valkey://", connection_pool=web_log.connection_pool, key_prefix=f"{{{settings.namespace}}}:limits"
        )
        self._requests = SlidingWindowCounterRateLimiter(storage)
        self._refused: dict[str, float] = {}

    def of(self, who: Principal) -> KeyLimits:
        """Those that apply to it."""
        own = {name: value for name, value in msgspec.structs.asdict(who.limits).items() if value is not None}
        return msgspec.structs.replace(self._defaults, **own)

    def count_request(self, who: Principal) -> None:
        """Raises RateLimited, ValkeyError."""
        own = self.of(who)
        if own.requests_per_minute:
            self._count(own.requests_per_minute, "requests", who.key or client_of(who))
        if own.tokens_per_minute:
            self._check_tokens(own.tokens_per_minute, client_of(who))

    def count_refusal(self) -> None:
        """A bad key was sent. Good ones from the same address, which many people may share, are not affected.

        Raises RateLimited if this address has sent many bad ones, ValkeyError.
        """
        address, item = client_key(), limits.RateLimitItemPerMinute(REFUSALS_PER_MINUTE)
        is_known = time.monotonic() < self._refused.get(address, 0)
        if is_known or not self._requests.hit(item, "refusals", address):
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            if not is_known:
                self._refused[address] = time.monotonic() + REFUSED_FOR_S
            raise RateLimited("your address has sent too many bad keys; try again later", retry_after_s=MINUTE_S)

    def _count(self, limit: int, *who: str) -> None:
        item = limits.RateLimitItemPerMinute(limit)
        is_allowed = self._requests.hit(item, *who)
        reset_at, remaining = self._requests.get_window_stats(item, *who)
        rate = Rate("requests", limit, remaining, max(0.0, reset_at - time.time()))
        _note(rate)
        if not is_allowed:
            raise RateLimited(
                f"you may send {limit} requests a minute; try again later", retry_after_s=math.ceil(rate.reset_s) or 1
            )

    def _check_tokens(self, limit: int, client: str) -> None:
        last, this, into_minute_s = self._log.tokens_used(client)
        used, wait_s = sliding(limit, last, this, into_minute_s)
        _note(Rate("tokens", limit, max(0, math.floor(limit - used)), wait_s or MINUTE_S - into_minute_s))
        if used >= limit:
            raise RateLimited(
                f"you may use {limit} tokens a minute; try again later", retry_after_s=math.ceil(wait_s) or 1
            )


def sliding(limit: int, last: int, this: int, into_minute_s: float) -> tuple[float, float]:
    """What was used in a sliding minute, estimated like `limits` does: of the `last` whole minute the share that still
    counts, and all of `this` one. And in how many seconds that is below the limit, if nothing more is used."""
    used = this + last * (1 - into_minute_s / MINUTE_S)
    if used < limit:
        return used, 0
    if this < limit:
        return used, MINUTE_S * (1 - (limit - this) / last) - into_minute_s
    return used, MINUTE_S - into_minute_s + MINUTE_S * (1 - limit / this)


def client_of(who: Principal) -> str:
    """The client that a request counts for. An address can't be taken for an owner."""
    return who.owner or f"@{client_key()}"


def _note(rate: Rate) -> None:
    g.setdefault("rates", []).append(rate)


HEADERS = tuple(
    f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
)


def add_headers(response: Response) -> None:
    """As OpenAI has them."""
    for rate in g.get("rates", ()):
        response.headers[f"x-ratelimit-limit-{rate.kind}"] = str(rate.limit)
        response.headers[f"x-ratelimit-remaining-{rate.kind}"] = str(rate.remaining)
        response.headers[f"x-ratelimit-reset-{rate.kind}"] = f"{rate.reset_s:.3f}s"
