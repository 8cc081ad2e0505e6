"""The headers of OpenAI's API, on all responses under /v1, errors included. Registered by `routes`."""

import re
import secrets
import time

from flask import Blueprint, Response, g, request

VERSION = "2020-10-01"
"""Of OpenAI's API, as its own servers say."""
IGNORED = "x-everstream-ignored"
MAX_IGNORED_CHARS = 1000
_PREFIX = "/v1/"
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def register(blueprint: Blueprint) -> None:
    blueprint.before_app_request(_start_clock)
    blueprint.after_app_request(_add_headers)


def name_ignored(names: list[str]) -> None:
    """Have the response name the request's fields that were ignored."""
    g.ignored = names


def _start_clock() -> None:
    g.started = time.monotonic()


def _add_headers(response: Response) -> Response:
    if not request.path.startswith(_PREFIX):
        return response
    given = request.headers.get("X-Request-Id", "")
    response.headers["x-request-id"] = given if _HARMLESS.fullmatch(given) else f"req_{secrets.token_hex(16)}"
    response.headers["openai-version"] = VERSION
    response.headers["openai-processing-ms"] = str(round((time.monotonic() - g.started) * 1000))
    if ignored := g.get("ignored"):
        # The names come from the client.
        shown = [name if _HARMLESS.fullmatch(name) else "?" for name in ignored]
        response.headers[IGNORED] = ", ".join(shown)[:MAX_IGNORED_CHARS]
    return response
