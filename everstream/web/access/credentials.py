"""Finds out who sends a request: from its key, its session, its ticket or its token. Called by `guard`.

A key comes as `Authorization: Bearer`, or as `x-api-key`. Records of keys are kept for a moment, so a revoked key works
for `CACHE_S` more seconds. A request with a bad key is refused even if it has a good session, too.
"""

import hmac
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
from flask import request

from everstream.errors import Forbidden, Unauthorized
from everstream.log import api_keys
from everstream.log.api_keys import ApiKey, KeyStore
from everstream.log.records import Generation
from everstream.settings import Settings
from everstream.web.access import signed
from everstream.web.access.client_limits import ClientLimits
from everstream.web.access.principal import Principal, principal
from everstream.web.access.rules import Rule
from everstream.web.access.signed import Session, Ticket
from everstream.web.resume_point import last_event_id, last_position

Value = TypeVar("Value")

CACHE_S = 2.0
MAX_CACHED = 10_000
MISSING = "missing_api_key"
COOKIE = "__Host-everstream"
"""The prefix makes browsers refuse one that is not Secure, or that another host has set."""


class Credentials:
    """One per web process. Raises ValkeyErrors."""

    def __init__(self, settings: Settings, store: KeyStore, limits: ClientLimits) -> None:
        self._settings = settings
        self._store = store
        self._limits = limits
        self._of_jwt = _jwt_reader(settings)
        self._key = _cached(store.find)
        self._guarded = _cached(lambda _: store.is_guarded())
        self._secret = _cached(lambda _: store.secret())

    @property
    def are_required(self) -> bool:
        """Whether everyone needs a key."""
        if self._settings.access == "auto":
            return self._settings.is_exposed or bool(self._guarded(""))
        return self._settings.access == "keys"

    @property
    def secret(self) -> bytes:
        secret = self._secret("")
        assert secret is not None
        return secret

    def authenticate(self, rule: Rule) -> Principal:
        """Who sends the current request. Raises Unauthorized, Forbidden, RateLimited, ProviderUnavailable."""
        if _token():
            return self.of_header()
        if rule.ticket and (text := request.args.get("ticket", "")):
            with self._counting_refusals():
                return self._of_ticket(text, rule)
        if (text := request.cookies.get(COOKIE, "")) and (session := signed.unsign(self.secret, text, Session)):
            return self._of_session(session)
        return self.of_header()

    def of_header(self) -> Principal:
        """The same from a key or token in the request's headers alone."""
        if token := _token():
            return self.of_token(token)
        raise Unauthorized("this needs an API key: Authorization: Bearer <key>", code=MISSING)

    def of_token(self, token: str) -> Principal:
        """Whose key or token this is. Raises Unauthorized, RateLimited, ProviderUnavailable."""
        with self._counting_refusals():
            if parsed := api_keys.parse(token):
                return self._of_key(*parsed)
            if self._of_jwt and token.count(".") == 2:
                return self._of_jwt(token)
            raise Unauthorized("this is not an API key of this service (es-…)")

    def session(self, who: Principal, for_s: int) -> Session:
        """What stands for this principal in a cookie or a ticket. Raises Unauthorized."""
        expires_at = int(time.time()) + for_s
        if not who.key:
            return Session(
                expires_at,
                owner=who.owner,
                name=who.name,
                scopes=sorted(who.scopes),
                publish=who.publish,
                follow=who.follow,
            )
        if not self.is_valid(who.credential):
            raise Unauthorized("this API key was revoked")
        return Session(expires_at, who.key, who.hash)

    def signature(self, known: Generation) -> str:
        """What the ids of this generation's events have, if the request has a ticket. Empty for one that the ticket
        may not see, because a signed id resumes its stream."""
        who = principal()
        if not who.ticket or known.owner != who.owner:
            return ""
        return signed.event_id_signature(self.secret, who.ticket, known.id)

    def topics_signature(self) -> str:
        """The same for the events of a stream of topics."""
        ticket = principal().ticket
        return signed.event_id_signature(self.secret, ticket, signed.TOPICS) if ticket else ""

    def is_valid(self, credential: str) -> bool:
        """Whether a principal's `credential` is still good."""
        key_id, _, shown = credential.partition(".")
        key = self._key(key_id)
        return key is not None and not key.is_expired and shown in _good_hashes(key)

    def _signature_of(self, ticket: Ticket, of: str) -> str:
        return signed.event_id_signature(self.secret, ticket.id, of)

    @contextmanager
    def _counting_refusals(self) -> Iterator[None]:
        try:
            yield
        except Unauthorized:
            self._limits.count_refusal()
            raise

    def _of_key(self, key_id: str, secret: str) -> Principal:
        key = self._key(key_id)
        if key is not None and not key.matches(secret):
            # It may have been rotated a moment ago.
            key = self._store.find(key_id)
        if key is None or not key.matches(secret):
            raise Unauthorized("this API key is unknown, or was revoked")
        return _principal_of(key, api_keys.hash_of(secret)[: signed.HASH_CHARS])

    def _of_session(self, session: Session) -> Principal:
        if time.time() >= session.expires_at:
            raise Unauthorized("this session has expired; sign in again", code="session_expired")
        if session.key:
            key = self._key(session.key)
            if key is None or session.hash not in _good_hashes(key):
                raise Unauthorized("the key of this session was revoked; sign in again", code="session_expired")
            return _principal_of(key, session.hash)
        if not self._settings.accepts_jwts:
            raise Unauthorized("this service takes no more tokens; sign in with a key", code="session_expired")
        scopes = frozenset(session.scopes)
        return Principal(
            session.owner,
            session.name,
            scopes=scopes,
            publish=session.publish,
            follow=session.follow,
            expires_at=session.expires_at,
        )

    def _of_ticket(self, text: str, rule: Rule) -> Principal:
        ticket = signed.unsign(self.secret, text, Ticket)
        if ticket is None:
            raise Unauthorized("this ticket was not made here", param="ticket", code="invalid_ticket")
        if ticket.kind == "start" and rule.ticket != "start":
            raise Forbidden("this ticket is for GET /stream", param="ticket", code="invalid_ticket")
        if bool(ticket.topics) != (rule.ticket == "follow"):
            what = "topics" if ticket.topics else "a generation"
            raise Forbidden(f"this ticket is for {what}", param="ticket", code="invalid_ticket")
        who = self._of_session(ticket.of)
        resumed = self._resumed(ticket)
        if not resumed and time.time() >= ticket.expires_at:
            raise Unauthorized("this ticket has expired; ask for another", param="ticket", code="ticket_expired")
        if ticket.topics:
            return self._follower(who, ticket)
        return msgspec.structs.replace(
            who,
            scopes=who.scopes & {"infer", "read"},
            only_generation=ticket.generation or resumed,
            ticket="" if ticket.kind == "share" else ticket.id,
        )

    def _follower(self, who: Principal, ticket: Ticket) -> Principal:
        """Raises Forbidden if the one who made the ticket may no longer follow its topics."""
        for pattern in ticket.topics:
            who.check_follow(pattern)
        shown = "" if ticket.kind == "share" else ticket.id
        return msgspec.structs.replace(
            who, scopes=who.scopes & {"infer", "read"}, publish=(), follow=tuple(ticket.topics), ticket=shown
        )

    def _resumed(self, ticket: Ticket) -> str:
        """What the request reconnects to, a generation or TOPICS: it has the signed id of one of its events. Raises
        InvalidInput."""
        if ticket.kind == "share":
            return ""
        if ticket.topics:
            seen_position = last_position()
            expected = self._signature_of(ticket, signed.TOPICS)
            is_same = seen_position is not None and hmac.compare_digest(seen_position.signature, expected)
            return signed.TOPICS if is_same else ""
        if (seen := last_event_id()) is None:
            return ""
        expected = self._signature_of(ticket, seen.generation)
        return seen.generation if hmac.compare_digest(seen.signature, expected) else ""


def _jwt_reader(settings: Settings) -> Callable[[str], Principal] | None:
    if not settings.accepts_jwts:
        return None
    # Imported here, because gunicorn imports its worker class, and with it this module, before gevent patches ssl.
    from everstream.web.access.jwts import Jwts  # noqa: PLC0415

    return Jwts(settings).principal


def _token() -> str:
    """Empty: there is none."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return request.headers.get("x-api-key", "").strip()


def _principal_of(key: ApiKey, shown: str) -> Principal:
    """`shown`: the beginning of the hash of the secret that was. Raises Unauthorized."""
    if key.is_expired:
        raise Unauthorized("this API key has expired")
    return Principal(
        key.owner,
        key.name,
        key.id,
        shown,
        frozenset(key.scopes),
        frozenset(key.models),
        key.limits,
        tuple(key.publish) or None,
        tuple(key.follow) or None,
    )


def _good_hashes(key: ApiKey) -> list[str]:
    """The beginnings of those that are accepted now."""
    hashes = [key.hash] + ([key.old_hash] if time.time() < key.old_until else [])
    return [each[: signed.HASH_CHARS] for each in hashes]


def _cached(find: Callable[[str], Value | None]) -> Callable[[str], Value | None]:
    """Each value is kept for CACHE_S; None is not, so that invented names take no room."""
    known: dict[str, tuple[float, Value]] = {}

    def found(name: str) -> Value | None:
        now = time.monotonic()
        if (kept := known.get(name)) and now - kept[0] <= CACHE_S:
            return kept[1]
        value = find(name)
        if value is None:
            known.pop(name, None)
            return None
        if len(known) >= MAX_CACHED:
            known.clear()
        known[name] = now, value
        return value

    return found
