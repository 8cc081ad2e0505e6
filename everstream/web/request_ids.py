"""What a request is called in logs: by its id, and by the generation that it is about.

The id is the client's own, or a new one. It is in the response, and in the logs of web and engine processes. It gives
no access.
"""

import re
import secrets

from flask import g, request

HEADER = "x-request-id"
HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
"""A client's text that can go into a header."""


def request_id() -> str:
    """That of the current request."""
    found: str = g.get("request_id", "")
    if not found:
        given = request.headers.get(HEADER, "")
        g.request_id = found = given if HARMLESS.fullmatch(given) else f"req_{secrets.token_hex(16)}"
    return found


def note_generation(generation: str) -> None:
    """The current request is about this generation."""
    g.generation = generation
