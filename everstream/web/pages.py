"""HTML responses. Called by the routes that have pages."""

from flask import Response


def html(text: str) -> Response:
    response = Response(text)
    # Nothing from other origins, nothing inline: a model's output can't become code.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return response
