"""Sessions, tickets and share links: what a browser shows instead of a key. Pure: the secret and the time are given.

Each is a signed list, readable by anyone, that names the key which stands for it, so all of a key's end with it. A
ticket is for one connection: it has to be used within a minute. EventSource reconnects to the same address, so the ids
of events in a ticket's stream are signed, too (`event_id_signature`): a reconnect shows its ticket and such an id, for
as long as the generation lives. A cookie would not do, as browsers withhold those of other sites; and an address that
somebody finds in a log has the ticket, but no event.
"""

import hashlib
import hmac
from typing import Any, Literal, TypeVar

import itsdangerous
import msgspec

from everstream.log.api_keys import Scope

HASH_CHARS = 16
"""Of a key's hash in a session."""
SESSION_S = 12 * 3600
TICKET_S = 60
MAX_SHARE_S = 7 * 86_400
MAX_CHARS = 1000
"""Of any of these."""

TicketKind = Literal["start", "read", "share"]
Signed = TypeVar("Signed", "Session", "Ticket")


class Session(msgspec.Struct, frozen=True, array_like=True):
    """A browser's, after `POST /session`. `key`: the key's id, and `hash` the beginning of its hash, so that a rotation
    ends it. Without a key: what the token of an identity provider said, see `Principal`."""

    expires_at: int
    key: str = ""
    hash: str = ""
    owner: str = ""
    name: str = ""
    scopes: list[Scope] = []
    publish: tuple[str, ...] | None = None
    follow: tuple[str, ...] | None = None


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """`kind`: `start` one generation, whose request id is `id`, and follow it; `read` the `generation` or follow the
    `topics`; or `share` these, which needs no signed event ids to reconnect. `of`: the session that asked for it."""

    expires_at: int
    kind: TicketKind
    of: Session
    id: str
    generation: str = ""
    topics: list[str] = []


def sign(secret: bytes, value: Session | Ticket) -> str:
    text: str = _serializer(secret, type(value)).dumps(msgspec.to_builtins(value))
    return text


def unsign(secret: bytes, text: str, kind: type[Signed]) -> Signed | None:
    """None: it was not signed here, as this kind. It may have expired."""
    if len(text) > MAX_CHARS:
        return None
    try:
        return msgspec.convert(_serializer(secret, kind).loads(text), kind)
    except (itsdangerous.BadData, msgspec.ValidationError):
        return None


TOPICS = "topics"


def event_id_signature(secret: bytes, ticket: str, of: str) -> str:
    """Stands in the ids of the events of a ticket's stream. `of`: a generation's id, or TOPICS."""
    return hmac.new(secret, f"{ticket}.{of}".encode(), hashlib.sha256).hexdigest()[:32]


def _serializer(secret: bytes, kind: type) -> Any:
    options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    return itsdangerous.URLSafeSerializer(secret, salt=f"everstream.{kind.__name__}", signer_kwargs=options)
