"""The names under which the service may be called. Called by `guard`.

Against DNS rebinding: a page of evil.example whose name comes to mean 127.0.0.1 would be of the service's own origin,
and the browser would send the attacker's name as Host. Only a name with a dot in it can be bound by someone else, so
addresses and names without one pass. A service that is open because it is for this machine alone is stricter.
"""

import functools
import ipaddress
from urllib.parse import urlsplit

from flask import request

from everstream.errors import UnknownHost

FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")
"""Headers by which a proxy shows that the client is elsewhere."""


def check(names: frozenset[str]) -> None:
    """`names`: those in EVERSTREAM_HOSTS. Raises UnknownHost."""
    name = _name(request.headers.get("Host", ""))
    if not (_address(name) or "." not in name or name.endswith(".localhost") or name in names or "*" in names):
        raise _unknown(name, "EVERSTREAM_HOSTS lists the names that it answers to")


def check_local() -> None:
    """Raises UnknownHost, if the client may be on another machine. A proxy on this one that says nothing of its
    clients, as nginx does by default, can't be told from a program."""
    peer = _address(request.remote_addr or "")
    if peer and not peer.is_loopback:
        raise UnknownHost("without keys it serves this machine alone, see docs/security.md", param="address")
    name = _name(request.headers.get("Host", ""))
    address = _address(name)
    if not (name in ("", "localhost") or name.endswith(".localhost") or (address and address.is_loopback)):
        raise _unknown(name, "without keys it serves this machine alone, see docs/security.md")
    if forwarded := next((header for header in FORWARDED if header in request.headers), None):
        raise UnknownHost(
            "a proxy sent this, and without keys this service serves this machine alone: see docs/security.md",
            param=forwarded,
        )


def _unknown(name: str, why: str) -> UnknownHost:
    return UnknownHost(f"this service is not called {name[:100]!r}: {why}", param="Host")


@functools.lru_cache(maxsize=256)
def _name(host: str) -> str:
    """Without the port; in lower case."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return f"{host}."


@functools.lru_cache(maxsize=256)
def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
