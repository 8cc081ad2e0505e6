"""Tokens of an identity provider (JWT, RFC 7519), as an alternative to keys. Called by `credentials`.

HS256 with EVERSTREAM_JWT_SECRET, or RS256 and ES256 with the keys in EVERSTREAM_JWT_JWKS. `exp` and `sub` are required;
`scope` (RFC 9068) or `scp` lists scopes.
"""

import hashlib
import logging
import math
import time
import urllib.request
from pathlib import Path
from typing import Any

import gevent
import jwt
from gevent.lock import BoundedSemaphore

from everstream.errors import InvalidInput, ProviderUnavailable, Unauthorized
from everstream.log.api_keys import SCOPES, Scope
from everstream.log.topic_names import check_pattern
from everstream.settings import Settings
from everstream.web import throttled_logging
from everstream.web.access.principal import Principal

logger = logging.getLogger(__name__)

REFRESH_S = 300.0
"""How long the provider's keys are used before they are read again."""
REFRESH_AT_LEAST_S = 10.0
"""The shortest time between two reads, however many tokens name unknown keys."""
FETCH_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 1 << 20
LEEWAY_S = 30
MAX_CHARS = 6000
"""Of a token: gunicorn takes headers of up to 8,190 bytes."""


class Jwts:
    """One per web process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = -math.inf
        self._turn = BoundedSemaphore()

    def principal(self, token: str) -> Principal:
        """Raises Unauthorized, ProviderUnavailable."""
        if len(token) > MAX_CHARS:
            raise Unauthorized(f"the token is over {MAX_CHARS} characters")
        try:
            return _principal(self._claims(token))
        except (jwt.PyJWTError, TypeError, ValueError) as error:
            # PyJWT's messages name the claim, and hold nothing of the token.
            raise Unauthorized(f"the token is refused: {error}") from None

    def _claims(self, token: str) -> dict[str, Any]:
        settings = self._settings
        is_secret = bool(settings.jwt_secret)
        claims: dict[str, Any] = jwt.decode(
            token,
            # A PyJWK also says which algorithm its key is for.
            settings.jwt_secret if is_secret else self._key(jwt.get_unverified_header(token).get("kid")),
            algorithms=["HS256"] if is_secret else ["RS256", "ES256"],
            audience=settings.jwt_audience or None,
            issuer=settings.jwt_issuer or None,
            leeway=LEEWAY_S,
            options={"require": ["exp", "sub"], "verify_aud": bool(settings.jwt_audience)},
        )
        return claims

    def _key(self, kid: str | None) -> jwt.PyJWK:
        """A known one at once, even while others are read. Raises InvalidKeyError, ProviderUnavailable."""
        age_s = time.monotonic() - self._read_at
        if self._find(kid) is None and age_s > REFRESH_AT_LEAST_S:
            with self._turn:
                if self._find(kid) is None and time.monotonic() - self._read_at > REFRESH_AT_LEAST_S:
                    self._read_keys()
        elif age_s > REFRESH_S and not self._turn.locked():
            gevent.spawn(self._refresh)
        if not self._keys:
            raise ProviderUnavailable("the identity provider's keys can't be read; try again later")
        if (found := self._find(kid)) is None:
            raise jwt.InvalidKeyError("its key (kid) is not among the provider's")
        return found

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    def _refresh(self) -> None:
        with self._turn:
            self._read_keys()

    def _read_keys(self) -> None:
        """While the provider does not answer, its last keys stay good."""
        self._read_at = time.monotonic()
        try:
            with gevent.Timeout(FETCH_TIMEOUT_S, TimeoutError("it takes too long")):
                keys = jwt.PyJWKSet.from_json(self._jwks()).keys
        # Whatever comes from there, requests go on.
        except Exception as error:
            throttled_logging.warning(logger, "EVERSTREAM_JWT_JWKS can't be read: %s", error)
        else:
            self._keys = {key.key_id: key for key in keys}

    def _jwks(self) -> str:
        where = self._settings.jwt_jwks
        if where.startswith("/"):
            return Path(where).read_text()
        # The settings allow no other schemes than http and https.
        with urllib.request.urlopen(where, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310
            return bytes(response.read(MAX_JWKS_BYTES)).decode()


def _principal(claims: dict[str, Any]) -> Principal:
    """The owner is the subject of this issuer, whatever characters either has."""
    who = f"{claims.get('iss', '')}\n{claims['sub']}"
    return Principal(
        owner=f"jwt-{hashlib.sha256(who.encode()).hexdigest()[:32]}",
        name=str(claims["sub"])[:64],
        scopes=_scopes(claims.get("scope", claims.get("scp"))),
        publish=_patterns(claims, "publish"),
        follow=_patterns(claims, "follow"),
        expires_at=int(claims["exp"]),
    )


def _patterns(claims: dict[str, Any], name: str) -> tuple[str, ...] | None:
    """Of topics: a list of texts, and an empty one allows none; without the claim, all. Raises InvalidTokenError."""
    if name not in claims:
        return None
    given = claims[name]
    if not isinstance(given, list):
        raise jwt.InvalidTokenError(f"the claim {name} must be a list of topics")
    try:
        return tuple(check_pattern(str(each)) for each in given)
    except InvalidInput as error:
        raise jwt.InvalidTokenError(f"the claim {name}: {error.message}") from None


def _scopes(claim: Any) -> frozenset[Scope]:
    """Those of ours in a text or a list; without the claim, `infer`."""
    if claim is None:
        return frozenset({"infer"})
    given = claim if isinstance(claim, list) else str(claim).split()
    return frozenset(scope for scope in SCOPES if scope in given)
