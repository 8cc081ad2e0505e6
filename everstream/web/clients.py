"""The address that a request comes from. Where there are no keys, the limits on clients go by it."""

import functools
import ipaddress
from typing import Any

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix


def trust_proxies(app: Flask, proxies: int) -> None:
    """Take the client's address from X-Forwarded-For, to which this many proxies in front have each appended one.

    Count from the end, because a client can start that header with anything it likes.
    """
    if proxies:
        wsgi_app: Any = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0)
        app.wsgi_app = wsgi_app  # type: ignore[method-assign]


def client_key() -> str:
    """The current request's IPv4 address, or the /64 of its IPv6 address, because one client owns the whole /64."""
    return network(request.remote_addr or "")


@functools.lru_cache(maxsize=1024)
def network(address: str) -> str:
    """The network that counts as one client. Other text, such as a Unix socket's peer, stands for itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
