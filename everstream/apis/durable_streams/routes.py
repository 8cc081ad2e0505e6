"""Durable Streams: https://github.com/durable-streams/durable-streams, PROTOCOL.md.

PUT    /v1/stream/<name>   make a topic, or a fork of one
POST   /v1/stream/<name>   append, close
GET    /v1/stream/<name>   read: ?offset=, ?live=long-poll or sse
HEAD   /v1/stream/<name>   its state
DELETE /v1/stream/<name>   forget it
GET    /v1/stream/generations/<id>   a generation, which can only be read (`generations`)
"""

from http import HTTPStatus

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed

from everstream.apis.durable_streams import generations, reads, requests
from everstream.apis.durable_streams.descriptions import DESCRIPTION
from everstream.apis.durable_streams.encoder import offset_text
from everstream.apis.durable_streams.forks import anchor_of
from everstream.errors import InvalidInput
from everstream.log.topic_records import Append, Producer, Published
from everstream.web.access.rules import PUBLISH, READ, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.publications import producer_of
from everstream.web.submission import body_bytes
from everstream.web.topic_requests import payer, topic_to_follow, topic_to_publish


def _add_headers(response: Response) -> None:
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    # A topic may be of any type, also one whose scripts would run as this service's own if somebody opened it.
    response.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"


blueprint = Blueprint("durable_streams", __name__)
API = Api(blueprint, (requests.PREFIX,), add_headers=_add_headers, description=DESCRIPTION)


def _topic_to_change(name: str) -> str:
    """Raises InvalidInput, Forbidden, MethodNotAllowed."""
    if name.startswith("generations/"):
        raise MethodNotAllowed(valid_methods=["GET", "HEAD", "OPTIONS"])
    return topic_to_publish(name)


@blueprint.put("/v1/stream/<path:name>")
@allow(PUBLISH)
def make(name: str) -> Response:
    topic, fork, closes = _topic_to_change(name), requests.fork(), requests.closes()
    config = requests.config(fork)
    body = body_bytes()
    source, anchor, partial, kind = anchor_of(fork, config.type) if fork else (None, 0, None, config.type)
    messages = requests.messages_of(body, kind, may_be_empty=True)
    made = app_context().topics.make(
        topic, payer(), config, messages, closes=closes, source=source, anchor=anchor, partial=partial
    )
    response = Response(status=HTTPStatus.CREATED if made.is_new else HTTPStatus.OK, content_type=made.type)
    response.headers["Stream-Next-Offset"] = offset_text(made.top)
    if made.is_new:
        response.headers["Location"] = request.base_url
    if made.is_closed:
        response.headers["Stream-Closed"] = "true"
    return response


@blueprint.post("/v1/stream/<path:name>")
@allow(PUBLISH)
def append(name: str) -> Response:
    topic, producer, closes = _topic_to_change(name), producer_of(request.headers), requests.closes()
    body = body_bytes()
    if not body and not closes:
        raise InvalidInput("the body is empty; only with Stream-Closed: true may it be", param="body")
    if body and not request.mimetype:
        raise InvalidInput("Content-Type is missing", param="Content-Type")
    # What closes a topic without a message needs no type.
    kind = request.mimetype if body else None
    messages = requests.messages_of(body, kind, may_be_empty=False) if kind else []
    added = Append(topic, messages, kind, closes=closes, producer=producer, sequence=requests.sequence())
    return _appended(app_context().topics.publish(added, payer()), producer)


def _appended(published: Published, producer: Producer | None) -> Response:
    is_new = producer is not None and published.seq is None and bool(published.positions)
    response = Response(status=HTTPStatus.OK if is_new else HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    response.headers["Stream-Next-Offset"] = offset_text(published.top)
    if published.is_closed:
        response.headers["Stream-Closed"] = "true"
    if producer:
        response.headers["Producer-Epoch"] = str(producer.epoch)
        response.headers["Producer-Seq"] = str(producer.seq if published.seq is None else published.seq)
    return response


@blueprint.get("/v1/stream/<path:name>")
@allow(READ)
def read(name: str) -> Response:
    topic_to_follow(name)
    return reads.head(name) if request.method == "HEAD" else reads.read(name, requests.read_request())


@blueprint.delete("/v1/stream/<path:name>")
@allow(PUBLISH)
def delete(name: str) -> Response:
    app_context().topics.delete(_topic_to_change(name))
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.get("/v1/stream/generations/<generation>")
@allow(READ)
def read_generation(generation: str) -> Response:
    return generations.read(generation, requests.read_request())
