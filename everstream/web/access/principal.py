"""Who sends a request, and what they may do. Pure, but for `principal()`."""

import msgspec
from flask import g

from everstream.errors import Forbidden, ModelNotAllowed
from everstream.log.api_keys import SCOPES, KeyLimits, Scope
from everstream.log.records import Generation
from everstream.log.topic_names import covers

ALL = frozenset(SCOPES)


class Principal(msgspec.Struct, frozen=True):
    """`owner`: whose generations and topics it makes and sees; empty if the service has no keys. `name`: its API key's,
    for logs. `key` and `hash`: that key's id, and the beginning of the hash of the secret that was shown. `models`:
    those that it may use; empty: all. `publish` and `follow`: patterns of the topics that it may; None: all.
    `expires_at`: when the token of an identity provider does, or the session that stands for it, in Unix seconds.

    `only_generation`: the one that a ticket or a share link lets it read. `ticket`: the ticket's id, for the ids of
    events; without `only_generation` it may start one, whose request id it is.
    """

    owner: str = ""
    name: str = ""
    key: str = ""
    hash: str = ""
    scopes: frozenset[Scope] = ALL
    models: frozenset[str] = frozenset()
    limits: KeyLimits = KeyLimits()
    publish: tuple[str, ...] | None = None
    follow: tuple[str, ...] | None = None
    expires_at: int = 0
    only_generation: str = ""
    ticket: str = ""

    @property
    def credential(self) -> str:
        """What `Credentials.is_valid` checks while its streams are open; empty: nothing can end it."""
        return f"{self.key}.{self.hash}" if self.key else ""

    @property
    def label(self) -> str:
        """In metrics, where the subjects of an identity provider, of whom there may be any number, are one. No key can
        have that name."""
        return self.name if self.key else ("(token)" if self.owner else "")

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or (scope == "read" and "infer" in self.scopes)

    def may_see(self, known: Generation) -> bool:
        if self.only_generation or self.ticket:
            return known.owner == self.owner and known.id == self.only_generation
        return known.owner == self.owner

    def may_use(self, model: str) -> bool:
        return not self.models or model in self.models

    def check_publish(self, topic: str) -> None:
        """Raises Forbidden."""
        _check_topic(topic, self.publish, "publish to")

    def check_follow(self, pattern: str) -> None:
        """`pattern`: a topic's name, or a pattern of names. Raises Forbidden."""
        _check_topic(pattern, self.follow, "follow")

    def may_follow(self, pattern: str) -> bool:
        return _is_allowed(pattern, self.follow)

    def check_model(self, model: str) -> None:
        """Raises ModelNotAllowed."""
        if not self.may_use(model):
            raise ModelNotAllowed(f"this key may use {', '.join(sorted(self.models))}, not {model[:100]}")


def _check_topic(wanted: str, allowed: tuple[str, ...] | None, what: str) -> None:
    if not _is_allowed(wanted, allowed):
        raise Forbidden(
            f"you may {what} {', '.join(allowed or ()) or 'no topic'}", param="topic", code="topic_not_allowed"
        )


def _is_allowed(wanted: str, allowed: tuple[str, ...] | None) -> bool:
    return allowed is None or any(covers(each, wanted) for each in allowed)


ANONYMOUS = Principal()
"""Whoever uses a service without keys: it may do everything."""


def principal() -> Principal:
    """Who sends the current request."""
    found: Principal = g.principal
    return found
