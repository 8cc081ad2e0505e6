"""Whose request this is. Everything that is counted per client in a web process asks here."""

import ipaddress
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix


def trust_proxies(app: Flask, proxies: int) -> None:
    """Take a client's address from what so many proxies before this process have appended to X-Forwarded-For.

    Counted from the end, as a client can begin that header with whatever it likes.
    """
    if proxies:
        wsgi_app: Any = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0)
        app.wsgi_app = wsgi_app  # type: ignore[method-assign]


def client() -> str:
    """Of the request at hand: its IPv4 address, or the /64 of its IPv6 address, all of which one client has."""
    return network(request.remote_addr or "")


def network(address: str) -> str:
    """Text that is no address, such as that of a Unix socket's peer, stands for itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
