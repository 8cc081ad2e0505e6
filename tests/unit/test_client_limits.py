"""The arithmetic of sliding minutes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.web.access.client_limits import MINUTE_S, sliding

COUNTS = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("last", "this", "into_s", "used", "wait_s"),
    [
        (0, 0, 0, 0, 0),
        (0, 9, 30, 9, 0),
        (100, 0, 0, 100, 54),
        (100, 0, 30, 50, 24),
        (0, 10, 30, 10, 30),
        (0, 20, 30, 20, 60),
        (1000, 40, 59, 40 + 1000 / 60, 46),
    ],
)
def test_sliding(last, this, into_s, used, wait_s):
    assert sliding(10, last, this, into_s) == pytest.approx((used, wait_s))


@given(st.integers(1, 10_000), COUNTS, COUNTS, st.floats(0, 59.9))
def test_after_the_wait_there_is_room(limit, last, this, into_s):
    used, wait_s = sliding(limit, last, this, into_s)
    assert (wait_s == 0) == (used < limit)
    assert 0 <= wait_s <= 2 * MINUTE_S
    at = into_s + wait_s + 0.001
    later = sliding(limit, last, this, at) if at < MINUTE_S else sliding(limit, this, 0, at - MINUTE_S)
    assert later[0] <= limit
