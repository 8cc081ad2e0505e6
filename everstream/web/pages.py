"""Pages, and other long texts that the process keeps. Called by the routes that have them."""

from flask import Response

from everstream.web.json_response import in_small_pieces
from everstream.web.stream_slots import admit
from everstream.web.streaming import PIECE_BYTES, bounded_connection

# Nothing from other origins, nothing inline: a model's output can't become code.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def html(text: bytes) -> Response:
    """Raises TooManyStreams."""
    response = kept_text(text, "text/html")
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


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
