"""API keys, as the log keeps them: each in one field of a hash, with only the SHA-256 of its secret.

A key reads `es-<id>-<secret>`. The id is public: it finds the record, and stands in access logs by its name. The secret
has 192 random bits, so an unsalted hash can't be searched for. In: `everstream keys` adds, rotates and revokes keys.
Out: web processes look them up (`web.access`).
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args

import msgspec
import valkey

from everstream.log.keys import Keys

Scope = Literal["infer", "read", "publish", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_NAME_CHARS = 64
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME_CHARS - 1}}}", re.ASCII)
ID_BYTES, SECRET_BYTES = 6, 24
_KEY = re.compile(rf"es-([0-9a-f]{{{2 * ID_BYTES}}})-([0-9a-f]{{{2 * SECRET_BYTES}}})", re.ASCII)


class KeyLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key's own limits. None: those of the settings."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    running: int | None = None
    queued: int | None = None
    streams: int | None = None
    log_bytes: int | None = None
    topic_bytes: int | None = None


class ApiKey(msgspec.Struct, frozen=True):
    """`owner`: whose generations and topics it makes and sees. `models`: those that it may use; `publish` and `follow`:
    patterns of the topics that it may; empty: all. Times are Unix seconds; `expires_at` 0: never. `old_hash` is
    accepted until `old_until`, after a rotation."""

    id: str
    name: str
    owner: str
    hash: str
    scopes: list[Scope]
    models: list[str] = []
    created_at: int = 0
    expires_at: int = 0
    limits: KeyLimits = KeyLimits()
    old_hash: str = ""
    old_until: int = 0
    publish: list[str] = []
    follow: list[str] = []

    @property
    def is_expired(self) -> bool:
        return bool(self.expires_at) and time.time() >= self.expires_at

    def matches(self, secret: str) -> bool:
        """In a time that says nothing about the hash."""
        given = hash_of(secret)
        is_current = hmac.compare_digest(given, self.hash)
        is_old = hmac.compare_digest(given, self.old_hash or given[::-1])
        return is_current or (is_old and time.time() < self.old_until)


def parse(text: str) -> tuple[str, str] | None:
    """A key's id and secret; None: it isn't one."""
    match = _KEY.fullmatch(text)
    return (match[1], match[2]) if match else None


def hash_of(secret: str) -> str:
    """In hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _new_secret() -> str:
    return secrets.token_hex(SECRET_BYTES)


class KeyRefused(Exception):
    """A key can't be added, rotated or revoked; the message is for people."""


class KeyStore:
    """The keys of one namespace. Raises ValkeyErrors."""

    def __init__(self, client: "valkey.Valkey", keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def find(self, key_id: str) -> ApiKey | None:
        found = cast(bytes | None, self._client.hget(self._keys.api_keys, key_id))
        return msgspec.json.decode(found, type=ApiKey) if found else None

    def is_guarded(self) -> bool:
        """Whether a key was ever added. It stays true when the last one is revoked."""
        return bool(self._client.exists(self._keys.guarded))

    def all(self) -> list[ApiKey]:
        """In the order of their names."""
        found = cast(dict[bytes, bytes], self._client.hgetall(self._keys.api_keys))
        return sorted((msgspec.json.decode(each, type=ApiKey) for each in found.values()), key=lambda key: key.name)

    def add(self, wanted: ApiKey) -> str:
        """Store a key like this one, with an id and a secret of its own. Its `owner` may name another key; empty: the
        new one. Returns the key itself, which is kept nowhere. Raises KeyRefused."""

        def change(known: Sequence[ApiKey]) -> tuple[ApiKey, str]:
            if any(key.name == wanted.name for key in known):
                raise KeyRefused(f"there is a key {wanted.name!r} already; choose another name, or rotate that one")
            key_id, secret = secrets.token_hex(ID_BYTES), _new_secret()
            owner = _named(known, wanted.owner).owner if wanted.owner else key_id
            added = msgspec.structs.replace(
                wanted, id=key_id, owner=owner, hash=hash_of(secret), created_at=int(time.time())
            )
            return added, f"es-{key_id}-{secret}"

        return self._change(change)

    def rotate(self, name: str, grace_s: int) -> str:
        """Give a key a new secret; the old one works for `grace_s` more seconds. Returns it. Raises KeyRefused."""

        def change(known: Sequence[ApiKey]) -> tuple[ApiKey, str]:
            key, secret = _named(known, name), _new_secret()
            old = {"old_hash": key.hash, "old_until": int(time.time()) + grace_s} if grace_s else {"old_hash": ""}
            return msgspec.structs.replace(key, hash=hash_of(secret), **old), f"es-{key.id}-{secret}"

        return self._change(change)

    def revoke(self, name: str) -> None:
        """Forget a key, by its name or id. Raises KeyRefused."""
        self._client.hdel(self._keys.api_keys, _named(self.all(), name).id)

    def secret(self) -> bytes:
        """What web processes sign sessions and tickets with. Made by the first that asks."""
        known = cast(bytes | None, self._client.get(self._keys.signing_secret))
        if known is None:
            # A read alone works while Valkey is full.
            self._client.set(self._keys.signing_secret, secrets.token_bytes(32), nx=True)
            known = cast(bytes, self._client.get(self._keys.signing_secret))
        return known

    def forget_sessions(self) -> None:
        """End all sessions, tickets and share links: what they were signed with is gone."""
        self._client.delete(self._keys.signing_secret)

    def _change(self, change: Callable[[Sequence[ApiKey]], tuple[ApiKey, str]]) -> str:
        """Store the changed key, unless another process changes the keys meanwhile; then again."""

        def attempt(pipe: Any) -> Any:
            key, text = change(self.all())
            pipe.multi()
            pipe.hset(self._keys.api_keys, key.id, msgspec.json.encode(key))
            pipe.set(self._keys.guarded, "")
            return text

        return cast(str, self._client.transaction(attempt, self._keys.api_keys, value_from_callable=True))


def _named(known: Sequence[ApiKey], name: str) -> ApiKey:
    """By name or id. Raises KeyRefused."""
    found = next((key for key in known if name in (key.name, key.id)), None)
    if found is None:
        names = ", ".join(key.name for key in known) or "none yet"
        raise KeyRefused(f"there is no key {name!r}; keys: {names}")
    return found
