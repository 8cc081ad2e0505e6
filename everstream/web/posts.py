"""What the APIs have in common that answer a POST, as OpenAI's and Anthropic's do. Called by their routes."""

import re
import secrets

import msgspec
from flask import Response, g, request

from everstream.errors import UnknownModel
from everstream.web.context import app_context
from everstream.web.sse import MIMETYPE
from everstream.web.submission import RequestOptions, idempotency_key

CONFLICT = 409
IGNORED = "x-everstream-ignored"
MAX_IGNORED_CHARS = 1000
WHOLE_FLUSH_MS = 1000
"""Nobody watches a response that comes whole, so its outputs are joined."""
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def served_name(name: str | None) -> str:
    """The name of a served model; None: the first. Raises UnknownModel."""
    names = app_context().models.names()
    if name is not None and name not in names:
        raise UnknownModel(f"The model {name[:100]!r} does not exist; served here: {', '.join(names)}", param="model")
    return name or names[0]


def reads_ids() -> bool:
    """Whether the client reads Server-Sent Events by the standard, and so can resume. Most SDKs read lines."""
    return MIMETYPE in request.headers.get("Accept", "") or "Last-Event-ID" in request.headers


def options_of_post(options: RequestOptions, *, is_stream: bool) -> RequestOptions:
    """With the idempotency key as request id. A client that can't come back is not waited for. Raises InvalidInput."""
    key = options.request_id or idempotency_key()
    can_return = key or (is_stream and reads_ids())
    return msgspec.structs.replace(
        options,
        request_id=key,
        flush_ms=WHOLE_FLUSH_MS if options.flush_ms is None and not is_stream else options.flush_ms,
        abandon_after_s=None if can_return else app_context().settings.post_abandon_after_s,
        may_refuse_late=True,
    )


def request_id() -> str:
    """The id of this HTTP request: the client's own, or a new one."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _HARMLESS.fullmatch(given) else f"req_{secrets.token_hex(16)}"
    found: str = g.request_id
    return found


def name_ignored(names: list[str]) -> None:
    """Have the response name the request's fields that were ignored, and count them."""
    g.ignored = names
    app_context().follower.count("parameters_ignored", len(names))


def add_headers(response: Response) -> None:
    """Those for `name_ignored`, and for clients that would send a request again in vain."""
    if response.status_code == CONFLICT:
        # OpenAI's and Anthropic's clients repeat it by themselves.
        response.headers["x-should-retry"] = "false"
    if ignored := g.get("ignored"):
        # The names come from the client.
        shown = [name if _HARMLESS.fullmatch(name) else "?" for name in ignored]
        response.headers[IGNORED] = ", ".join(shown)[:MAX_IGNORED_CHARS]
