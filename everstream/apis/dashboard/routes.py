"""Live figures of the whole service, for operators.

GET /dashboard           a page
GET /dashboard/events    the figures, once a second: `history` first, then default events; `away` if Valkey is

With API keys, the figures need one with the scope `admin`.
"""

import random
from collections.abc import Iterator

from flask import Blueprint, Response, current_app, render_template

from everstream.apis.dashboard.descriptions import DESCRIPTION
from everstream.apis.dashboard.sampler import Sampler, Viewer
from everstream.web import sse
from everstream.web.access.principal import principal
from everstream.web.access.rules import ADMIN, PUBLIC, allow
from everstream.web.api import Api
from everstream.web.context import AppContext, app_context
from everstream.web.disconnect_watcher import DisconnectWatcher
from everstream.web.json_response import in_small_pieces
from everstream.web.pages import html
from everstream.web.streaming import admitted, bounded_connection, event_stream

EXTENSION = "everstream.dashboard"
"""Where the application keeps its sampler."""
SEND_BUFFER_BYTES = 8 << 10
"""Holds a few events, because what the kernel has for a client that is slow is old."""

blueprint = Blueprint("dashboard", __name__)
API = Api(blueprint, description=DESCRIPTION)


@blueprint.get("/dashboard")
@allow(PUBLIC)
def page() -> Response:
    return html(render_template("dashboard.html").encode())


@blueprint.get("/dashboard/events")
@allow(ADMIN)
def events() -> Response:
    return admitted(_stream)


def _stream() -> Response:
    context, sampler = app_context(), _sampler()
    viewer = sampler.open()
    response = event_stream(_frames(context, sampler, viewer, principal().credential))
    response.call_on_close(viewer.close)
    return response


def _sampler() -> Sampler:
    sampler: Sampler | None = current_app.extensions.get(EXTENSION)
    if sampler is None:
        context = app_context()
        sampler = Sampler(context.log.figures, context.settings.max_log_bytes)
        current_app.extensions[EXTENSION] = sampler
        context.streams.on_drain(sampler.drain)
    return sampler


def _frames(context: AppContext, sampler: Sampler, viewer: Viewer, credential: str) -> Iterator[bytes]:
    client, settings, streams = bounded_connection(SEND_BUFFER_BYTES), context.settings, context.streams
    watcher = DisconnectWatcher(client, viewer.leave) if client else None
    try:
        if watcher:
            watcher.start()
        # Jitter: the viewers of a killed process must not all reconnect at the same instant.
        yield sse.GREETING + sse.retry(random.randint(settings.retry_ms, settings.retry_ms * 3 // 2))  # noqa: S311
        yield from in_small_pieces([sampler.past()])
        while not streams.draining and (event := viewer.next(settings.heartbeat_s)) is not None:
            if credential and not context.credentials.is_valid(credential):
                return
            yield event
        if streams.draining:
            yield sse.retry(streams.return_after_ms())
    finally:
        if watcher:
            watcher.stop()
