"""Topics, for EventSource and curl.

PUT    /topics/<name>             make a topic: {"content_type", "latest", "history", "ttl_s"}, all optional
POST   /topics/<name>             publish: {"data", "event", "id", "ttl_s"}, a list of these, text, or bytes
POST   /topics                    publish to several topics: a list of {"topic", "data", ...}
GET    /topics/<name>             follow
GET    /topics?topic=a&topic=b/*  follow several
GET    /topics                    {"topics": [...]}: what there is
GET    /presence?topic=a          {"topic", "followers", "present"}: who follows it
DELETE /topics/<name>             forget it and its messages
"""

import itertools

from flask import Blueprint, Response, request

from everstream.apis.topics.descriptions import (
    DESCRIPTION,
    Acknowledged,
    Outcome,
    SeveralAcknowledged,
    TopicList,
    TopicOptions,
    TopicPresence,
    TopicState,
)
from everstream.apis.topics.encoder import TopicEventEncoder
from everstream.errors import EverstreamError, InvalidInput, UnsupportedMediaType
from everstream.log.positions import position_text
from everstream.log.topic_names import is_pattern
from everstream.log.topic_records import JSON, Published, Topic, TopicConfig, name_of
from everstream.web import publications, topic_publishing
from everstream.web.access.principal import principal
from everstream.web.access.rules import PUBLISH, Rule, allow
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.json_response import small_json
from everstream.web.resume_point import last_position
from everstream.web.streaming import admitted, is_eventsource
from everstream.web.submission import body, body_bytes, parsed
from everstream.web.topic_requests import (
    payer,
    start,
    subscription_to,
    topic_to_follow,
    topic_to_publish,
)
from everstream.web.topic_streaming import follow_topics

MAX_LISTED = 200
MAX_PRESENCE_CHARS = 64
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "")

blueprint = Blueprint("topics", __name__)
API = Api(blueprint, description=DESCRIPTION)

FOLLOW = Rule("read", ticket="follow")


@blueprint.put("/topics/<path:name>")
@allow(PUBLISH)
def make(name: str) -> Response:
    topic = topic_to_publish(name)
    wanted = parsed(body(), TopicOptions) if request.get_data() else TopicOptions()
    if wanted.latest and wanted.history not in (None, 1):
        raise InvalidInput("a topic with latest keeps one message, so leave history out", param="history")
    content_type = wanted.content_type.partition(";")[0].strip().lower()
    history = 1 if wanted.latest else wanted.history
    config = TopicConfig(content_type, history, wanted.latest, wanted.ttl_s)
    made = app_context().topics.make(topic, payer(), config)
    # Somebody may delete it meanwhile: then it is said what it was.
    states = _states([name]) or [_state(Topic(name, config, 0, 0, 0, made.top, made.top, 0, is_deleted=False))]
    return small_json(states[0], 201 if made.is_new else 200)


@blueprint.post("/topics/<path:name>")
@allow(PUBLISH)
def publish(name: str) -> Response:
    topic, producer = topic_to_publish(name), publications.producer_of(request.headers)
    data, kind = body_bytes(), request.mimetype
    if kind in FORMS:
        raise UnsupportedMediaType(
            "the body must be application/json (with curl: --json), text/plain, or another type, but no form",
            param="Content-Type",
        )
    if kind == JSON:
        found = publications.parse(data)
        if any(each.topic not in (None, name) for each in found):
            raise InvalidInput("the topic is in the URL; to publish to several, POST /topics", param="topic")
        published = topic_publishing.publish_json(topic, found, producer)
    else:
        options = publications.options_of(request.args)
        published = topic_publishing.publish_body(topic, data, kind, producer, options)
    return small_json(_acknowledged(name, published))


@blueprint.post("/topics")
@allow(Rule("publish"))
def publish_to_several() -> Response:
    groups = []
    # Those of one topic in a row are appended together.
    for name, group in itertools.groupby(publications.parse(body_bytes()), lambda each: each.topic):
        if not name:
            raise InvalidInput("each message needs the topic's name", param="topic")
        groups.append((topic_to_publish(name), list(group)))
    outcomes = topic_publishing.publish_several(groups)
    found = [_outcome(name_of(topic), outcome) for (topic, _), outcome in zip(groups, outcomes, strict=True)]
    return small_json(SeveralAcknowledged(found))


def _outcome(name: str, outcome: Published | EverstreamError) -> Outcome:
    if isinstance(outcome, EverstreamError):
        return Outcome(name, error=outcome.body()["error"])
    done = _acknowledged(name, outcome)
    return Outcome(name, done.ids, done.last)


def _acknowledged(name: str, published: Published) -> Acknowledged:
    positions = [position_text(position) for position in published.positions]
    return Acknowledged(name, positions, position_text(published.top), duplicate=published.seq is not None)


@blueprint.get("/topics/<path:name>")
@allow(FOLLOW)
def follow(name: str) -> Response:
    return _follow([name], {"topic": name})


@blueprint.get("/topics")
@allow(FOLLOW)
def follow_several() -> Response:
    patterns = request.args.getlist("topic")
    if patterns or is_eventsource():
        return _follow(patterns, {"topics": patterns}, has_several=True)
    return _list()


def _follow(patterns: list[str], opening: dict[str, object], *, has_several: bool = False) -> Response:
    subscription, where = subscription_to(patterns), start()
    encoder = TopicEventEncoder(
        opening,
        has_several=has_several,
        is_text=_one_of("format", ("text",)) == "text",
        ping_ms=int(app_context().settings.heartbeat_s * 1000) if _one_of("ping", ("true", "false")) == "true" else 0,
        signature=app_context().credentials.topics_signature(),
    )
    if not has_several and where.kind == "after" and _has_ended(patterns[0], where.number):
        # By the standard, 204 stops an EventSource for good.
        return Response(status=204)
    presence, is_first = _presence_name(patterns), last_position() is None
    return admitted(lambda: follow_topics(subscription, where, encoder, is_first=is_first, presence=presence))


def _presence_name(patterns: list[str]) -> str:
    """Raises InvalidInput."""
    name = request.args.get("presence", "")
    if len(name) > MAX_PRESENCE_CHARS or not name.isprintable():
        raise InvalidInput(f"presence must be 1 to {MAX_PRESENCE_CHARS} printable characters", param="presence")
    if name and any(map(is_pattern, patterns)):
        raise InvalidInput("presence is for topics, not for patterns", param="presence")
    return name


@blueprint.get("/presence")
@allow(FOLLOW)
def show_presence() -> Response:
    topic = topic_to_follow(request.args.get("topic", ""))
    present = app_context().presence.read([topic])[0]
    return small_json(TopicPresence(name_of(topic), present.followers, present.present))


def _one_of(param: str, allowed: tuple[str, ...]) -> str:
    """Raises InvalidInput."""
    given = request.args.get(param, "")
    if given not in ("", *allowed):
        raise InvalidInput(f"{param} must be {' or '.join(allowed)}, or left out", param=param)
    return given


def _has_ended(name: str, seen: int) -> bool:
    known = app_context().topics.show(principal().owner, [name])[0]
    return known is not None and known.is_closed and seen >= known.closed_at


def _list() -> Response:
    who, prefix = principal(), request.args.get("prefix", "")
    names = [name for name in app_context().topics.names(who.owner, prefix) if who.may_follow(name)]
    return small_json(TopicList(_states(names[:MAX_LISTED]), more=len(names) > MAX_LISTED))


def _states(names: list[str]) -> list[TopicState]:
    found = app_context().topics.show(principal().owner, names)
    return [_state(each) for each in found if each]


def _state(known: Topic) -> TopicState:
    return TopicState(
        known.name,
        known.config.type,
        known.messages,
        known.bytes,
        position_text(known.first) if known.first else None,
        position_text(known.top),
        closed=known.is_closed,
        latest=known.config.latest,
        history=known.config.history,
        ttl_s=known.config.ttl_s,
    )


@blueprint.delete("/topics/<path:name>")
@allow(PUBLISH)
def delete(name: str) -> Response:
    app_context().topics.delete(topic_to_publish(name))
    return Response(status=204)
