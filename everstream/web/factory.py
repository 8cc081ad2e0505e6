"""Builds the Flask application of one worker process from the given APIs. Called by `wsgi.py`.

Bounds: a body has at most `max_body_bytes`, a request line 8,190 bytes (gunicorn), a prompt `max_prompt_chars`, and a
request id 16 to 64 characters. A process has at most `max_streams` streams, and a few prompts being validated by
engines (`prompt_validation`). A web process keeps no state that matters, so any of them can answer any request.
"""

import mimetypes
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Flask, Response, request
from flask_cors import CORS
from gevent.queue import LifoQueue

from everstream.log.presence import PresenceLog
from everstream.log.topic_log import TopicLog
from everstream.log.web_log import WebLog
from everstream.settings import PROJECT_ROOT, Settings, load_settings
from everstream.web import access_log, error_responses, request_ids, static_files, traces
from everstream.web.access import client_limits
from everstream.web.access.client_limits import ClientLimits
from everstream.web.access.credentials import Credentials
from everstream.web.access.guard import Guard
from everstream.web.api import Api, api_of
from everstream.web.clients import trust_proxies
from everstream.web.context import EXTENSION, AppContext
from everstream.web.follower import Follower
from everstream.web.models import Models
from everstream.web.open_streams import OpenStreams
from everstream.web.prompt_validation import PromptValidator
from everstream.web.stream_slots import ClientSlots
from everstream.web.topic_follower import TopicFollower

# Python 3.11 and some machines have another.
mimetypes.add_type("text/javascript", ".js")

ALLOWED_HEADERS = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Producer-Epoch",
    "Producer-Id",
    "Producer-Seq",
    "Stream-Closed",
    "Stream-Expires-At",
    "Stream-Fork-Offset",
    "Stream-Fork-Sub-Offset",
    "Stream-Forked-From",
    "Stream-Seq",
    "Stream-TTL",
    "Traceparent",
    "Tracestate",
    "X-Api-Key",
    "X-Request-Id",
    "X-Run-Id",
)
EXPOSED_HEADERS = (
    "X-Request-Id",
    "ETag",
    "Retry-After",
    "Location",
    "Producer-Epoch",
    "Producer-Expected-Seq",
    "Producer-Received-Seq",
    "Producer-Seq",
    "Stream-Closed",
    "Stream-Cursor",
    "Stream-Expires-At",
    "Stream-Next-Offset",
    "Stream-SSE-Data-Encoding",
    "Stream-TTL",
    "Stream-Up-To-Date",
    "X-Everstream-Ignored",
    "X-Workflow-Run-Id",
    "X-Workflow-Stream-Tail-Index",
    *client_limits.HEADERS,
)
"""What a page of another origin may send and read."""


def create_app(apis: Sequence[Api], settings: Settings | None = None) -> Flask:
    """Loads each model folder's `input_schema.py`, whose imports the import contracts don't see: see docs/models.md.

    Raises SettingsError.
    """
    settings = settings or load_settings()
    apis = [api for api in apis if api.is_served(settings)]
    # The standard library's queue takes three of gevent's locks for each command.
    web_log = WebLog(settings, LifoQueue)
    app = Flask("everstream", template_folder=str(PROJECT_ROOT / "templates"), static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.json.sort_keys = False  # type: ignore[attr-defined]
    streams, topics, presence = OpenStreams(settings), TopicLog(settings, web_log), PresenceLog(settings, web_log)
    limits = ClientLimits(settings, web_log)
    credentials = Credentials(settings, web_log.api_keys, limits)
    app.extensions[EXTENSION] = AppContext(
        settings,
        web_log,
        streams,
        Follower(web_log, settings, streams),
        topics,
        presence,
        TopicFollower(topics, presence, streams),
        PromptValidator(web_log, len(settings.served)),
        Models(settings, web_log),
        credentials,
        limits,
        ClientSlots(web_log),
        {name: encoder for api in apis for name, encoder in api.formats.items()},
        apis,
    )
    trust_proxies(app, settings.proxies)
    app.before_request(access_log.start_clock)
    app.before_request(traces.begin)
    for api in apis:
        app.register_blueprint(api.blueprint)
    app.before_request(Guard(settings, credentials).check)
    static_files.register(app)
    error_responses.register(app, apis)
    _allow_origins(app, settings)
    app.after_request(partial(_add_headers, apis))
    return app


def _allow_origins(app: Flask, settings: Settings) -> None:
    """Answer browsers that ask whether a page of another origin may call the service (CORS)."""
    if settings.cors_list:
        CORS(
            app,
            origins=sorted(settings.cors_list),
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
            max_age=600,
        )


def _add_headers(apis: Sequence[Api], response: Response) -> Response:
    if api := api_of(request.path, apis):
        api.add_headers(response)
    client_limits.add_headers(response)
    response.headers[request_ids.HEADER] = request_ids.request_id()
    if response.status_code == HTTPStatus.PERMANENT_REDIRECT and response.location:
        # Of a doubled slash. Relative, as only a proxy in front may know that clients speak HTTPS.
        response.location = urlsplit(response.location)._replace(scheme="", netloc="").geturl()
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault(
        "Cache-Control", "no-cache" if request.endpoint == static_files.UNVERSIONED else "no-store"
    )
    access_log.log_request(response)
    traces.finish(response)
    return response
