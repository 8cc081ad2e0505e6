"""Several models in one service: each has its own engine and queue, and none notices another's trouble."""

import pytest

from harness.sse_client import assert_whole, read_all, text_of
from harness.stack import MODELS, running_stack

BOTH = {"say": MODELS / "scripted", "count": MODELS / "plain"}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    with running_stack(tmp_path_factory.mktemp("both"), models=BOTH) as stack:
        yield stack


def test_native_routes_by_model(both):
    for query, text in (("texts=a", "a"), ("model=say&texts=b", "b"), ("model=count&count=2", "0 1 ")):
        events = read_all(f"{both.url}/stream?{query}")
        assert_whole(events)
        assert text_of(events) == text
        assert events[0].json["model"] == ("count" if "count" in query else "say")
