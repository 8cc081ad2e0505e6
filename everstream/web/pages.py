"""Pages, and other long texts that the process keeps. Called by the routes that have them."""

import base64
import hashlib
import re

from flask import Response

from everstream.web.json_response import in_small_pieces
from everstream.web.stream_slots import admit
from everstream.web.streaming import PIECE_BYTES, bounded_connection

# Nothing from other origins, nothing inline: a model's output can't become code.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def html(text: bytes, policy: str = CONTENT_SECURITY_POLICY) -> Response:
    """Raises TooManyStreams."""
    response = kept_text(text, "text/html")
    response.headers["Content-Security-Policy"] = policy
    return response


def policy_with_scripts_of(text: bytes) -> str:
    """The policy that lets a page's own inline scripts run as well, by their hashes. Only for a page that is a file of
    the project's: what a template fills in must not become code."""
    digests = [hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(text)]
    allowed = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return CONTENT_SECURITY_POLICY.replace("script-src 'self'", f"script-src 'self'{allowed}")


def kept_text(text: bytes, mimetype: str) -> Response:
    """If it is long, a slow client has time for each piece of it, and it holds a stream slot until it is sent.

    Raises TooManyStreams.
    """
    if len(text) <= PIECE_BYTES:
        return Response(text, mimetype=mimetype)
    bounded_connection()
    response = Response(in_small_pieces([text]), mimetype=mimetype)
    response.content_length = len(text)
    response.call_on_close(admit())
    return response
