"""What `web.access` does before a route, as OpenAPI says it. Pure. Called by `document`."""

from collections.abc import Sequence
from typing import NamedTuple

from everstream.contract.inlining import JsonSchema
from everstream.errors import (
    CrossOrigin,
    Forbidden,
    ModelNotAllowed,
    ProviderUnavailable,
    RateLimited,
    Unauthorized,
    UnknownHost,
    UnsupportedMediaType,
)
from everstream.web.access.credentials import COOKIE
from everstream.web.access.cross_site import SAFE
from everstream.web.access.rules import PUBLIC, Rule
from everstream.web.description import READ, Failure, failures

SCHEMES: dict[str, JsonSchema] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the identity provider."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "See POST /session."},
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "See POST /tickets and POST /shares."},
}
_MISSING = (Failure(401, "missing_api_key"), Failure(401, "session_expired"))


class Guarding(NamedTuple):
    """`schemes`: by any of these a request may show that it is allowed; empty: it need not."""

    failures: Sequence[Failure]
    schemes: Sequence[JsonSchema] = ()


def guarding(rule: Rule | None, method: str, *, needs_keys: bool) -> Guarding:
    """`needs_keys`: whether this service has keys."""
    rule = rule or PUBLIC
    refused = failures(UnknownHost)
    if rule.scope == "infer":
        refused += failures(RateLimited, CrossOrigin)
    if method not in SAFE:
        refused += failures(CrossOrigin, UnsupportedMediaType)
    if rule.scope is None or not needs_keys:
        return Guarding(refused)
    refused += (*failures(Unauthorized, Forbidden, ModelNotAllowed, ProviderUnavailable, RateLimited), *_MISSING, *READ)
    names = [name for name in SCHEMES if rule.ticket or name != "ticket"]
    return Guarding(refused, [{name: []} for name in names])
