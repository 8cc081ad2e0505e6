"""Refuses requests that a page of another site makes a visitor's browser send. Called by `guard`.

Browsers say where a request comes from, by `Sec-Fetch-Site`, `Origin` or both; programs need not. And a page of another
origin may not send JSON without asking first (CORS), which only the origins in EVERSTREAM_CORS_ORIGINS are granted. It
may send text; where a rule takes that, too, what browsers say is all there is.
"""

from urllib.parse import urlsplit

from flask import request

from everstream.errors import CrossOrigin, UnsupportedMediaType
from everstream.web.access.rules import ANY_TYPE, Rule

SAFE = ("GET", "HEAD", "OPTIONS")


def check(rule: Rule, origins: frozenset[str]) -> None:
    """`origins`: those whose pages may. Raises CrossOrigin, UnsupportedMediaType."""
    starts = rule.scope == "infer" or request.method not in SAFE
    if starts and not ("*" in origins or request.headers.get("Origin") in origins):
        _check_origin()
    # Every browser sends one of the two headers with a POST; programs may leave all of them out. So where any type is
    # taken, the check of the origin is enough.
    is_browser = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    has_type = rule.takes == ANY_TYPE or request.mimetype in rule.takes or (not is_browser and not request.content_type)
    if request.method not in SAFE and _has_body() and not has_type:
        raise UnsupportedMediaType(
            f"the body must be {' or '.join(rule.takes)} (with curl: --json)", param="Content-Type"
        )


def _check_origin() -> None:
    """As Go's `http.CrossOriginProtection` does: a proxy may hide the name that the page has, but no page can set
    `Sec-Fetch-Site`. Raises CrossOrigin."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise CrossOrigin("only this service's own pages may do this", param="Sec-Fetch-Site")
    elif origin is not None and _host(origin) != request.host.lower():
        raise CrossOrigin("only this service's own pages may do this", param="Origin")


def _has_body() -> bool:
    return bool(request.content_length) or "Transfer-Encoding" in request.headers


def _host(origin: str) -> str | None:
    """With the port, in lower case. None: it is not a URL, as in `Origin: null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
