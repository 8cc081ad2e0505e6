"""What requests say about topics: which, from where on, whose. Called by the routes of all APIs that have topics."""

import re
import time
from datetime import datetime

from flask import request

from everstream.errors import InvalidInput
from everstream.log.topic_names import check_name, check_pattern, is_pattern
from everstream.log.topic_records import Payer, Start, Subscription, TopicConfig, topic_id
from everstream.web.access.client_limits import client_of
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.resume_point import last_position

MAX_TOPICS = 100
MAX_PATTERNS = 10
"""Of names. Each is compared with many names while Valkey does nothing else."""
MAX_LAST = 1000
_NUMBER = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,9})?", re.ASCII)


def topic_to_publish(name: str) -> str:
    """The topic's id. Raises InvalidInput, Forbidden."""
    who = principal()
    who.check_publish(check_name(name))
    return topic_id(who.owner, name)


def topic_to_follow(name: str) -> str:
    """The same for reading."""
    who = principal()
    who.check_follow(check_name(name))
    return topic_id(who.owner, name)


def subscription_to(patterns: list[str]) -> Subscription:
    """Raises InvalidInput, Forbidden."""
    who = principal()
    different = sorted(set(patterns))
    if not 1 <= len(different) <= MAX_TOPICS:
        raise InvalidInput(f"topic must be given 1 to {MAX_TOPICS} times", param="topic")
    if sum(map(is_pattern, different)) > MAX_PATTERNS:
        raise InvalidInput(f"at most {MAX_PATTERNS} topics may be patterns", param="topic")
    for pattern in different:
        who.check_follow(check_pattern(pattern))
    return Subscription(who.owner, tuple(different))


def payer() -> Payer:
    """Whose room the request's messages take."""
    who = principal()
    return Payer(client_of(who), app_context().limits.of(who).topic_bytes)


def made_by_publishing(content_type: str) -> TopicConfig:
    """What a topic is like that its first message makes."""
    settings = app_context().settings
    return TopicConfig(content_type, settings.topic_history, ttl_s=settings.topic_retention_s, implicit=True)


def start() -> Start:
    """Where the request's stream begins. Raises InvalidInput."""
    if seen := last_position():
        return Start("after", seen.position)
    last, since = request.args.get("last", ""), request.args.get("since", "")
    if last and since:
        raise InvalidInput("last and since exclude each other", param="last")
    if last:
        if not (last.isascii() and last.isdecimal() and 0 < int(last[:9]) <= MAX_LAST and len(last) <= 4):
            raise InvalidInput(f"last must be a whole number from 1 to {MAX_LAST}", param="last")
        return Start("last", int(last))
    return Start("since", _position_at(since)) if since else Start("now")


def _position_at(text: str) -> int:
    """Positions are times, in microseconds. Raises InvalidInput."""
    # Valkey refuses numbers that are too large, and a refusal counts as a fault of this process.
    latest_s = time.time() + 1
    return max(0, int(min(_seconds_of(text), latest_s) * 1e6) - 1)


def _seconds_of(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        # A plus sign in a query is a space.
        raise InvalidInput("since must be Unix seconds, or a time with its zone: 2026-01-31T12:00:00Z", param="since")
    return at.timestamp()
