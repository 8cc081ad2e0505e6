"""Refuses requests that another site's page makes a visitor's browser send. Called by `routes`."""

from urllib.parse import urlsplit

from flask import request

from everstream.errors import CrossOrigin, UnsupportedMediaType


def check() -> None:
    """Raises CrossOrigin, UnsupportedMediaType.

    Browsers say where a request comes from, by one header or both; programs need not. And a page of another origin may
    not send JSON without asking first, which nothing here allows.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site not in (None, "same-origin", "none"):
        raise CrossOrigin("only this service's own pages may do this", param="Sec-Fetch-Site")
    if origin is not None and _host(origin) != request.host.lower():
        raise CrossOrigin("only this service's own pages may do this", param="Origin")
    if request.mimetype != "application/json":
        raise UnsupportedMediaType("the body must be application/json", param="Content-Type")


def _host(origin: str) -> str | None:
    """With the port, in lower case. None: it is not a URL, as in `Origin: null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
