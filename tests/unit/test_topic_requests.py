"""Where a request begins to read topics."""

import time
from datetime import UTC, datetime

import pytest
from flask import Flask

from everstream.errors import InvalidInput
from everstream.log.topic_records import Start
from everstream.web import topic_requests

POSITION = "1796049849090180"


def start(query="", **headers):
    with Flask(__name__).test_request_context("/topics/a", query_string=query, headers=headers):
        return topic_requests.start()


def test_start():
    assert start() == Start("now")
    assert start("last=3") == Start("last", 3)
    assert start("since=12.5") == start("since=1970-01-01T00:00:12.5Z") == Start("since", 12_499_999)
    assert start("since=0") == Start("since", 0)
    assert start("last=3", **{"Last-Event-ID": POSITION}) == Start("after", int(POSITION))
    assert start(f"last=3&last_event_id={POSITION}") == Start("after", int(POSITION))


@pytest.mark.parametrize("since", ["9" * 16, datetime.max.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")])
def test_time_to_come_is_about_now(since):
    # Valkey would refuse a larger number, and its refusal would count as a fault of the process.
    assert start(f"since={since}").number < (time.time() + 2) * 1e6


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("last=0", "last"),
        ("last=1001", "last"),
        ("last=1&since=1", "last"),
        ("since=yesterday", "since"),
        ("since=2026-01-31T12:00:00", "since"),
        ("since=" + "9" * 17, "since"),
        ("last_event_id=1", "last_event_id"),
    ],
)
def test_refused(query, param):
    with pytest.raises(InvalidInput) as refused:
        start(query)
    assert refused.value.param == param
