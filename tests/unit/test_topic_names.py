"""Names of topics and patterns of them, against what they mean, worked out segment by segment."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everstream.errors import InvalidInput
from everstream.log.topic_names import (
    MAX_CHARS,
    MAX_SEGMENTS,
    RESERVED,
    check_name,
    check_pattern,
    covers,
    is_pattern,
    regex,
)

LONGEST = 6
NAMES = ["/".join(each) for count in range(1, LONGEST + 1) for each in itertools.product("abc", repeat=count)]
"""Enough to tell patterns of up to four segments of a and b apart: c stands for any other."""
PATTERNS = (
    st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=4)
    .filter(lambda segments: segments.count("**") <= 1)
    .map("/".join)
)
SEGMENTS = st.from_regex(r"[A-Za-z0-9._~@+-]{1,3}", fullmatch=True)


def matches(pattern, name):
    """Segment by segment."""
    if not pattern:
        return not name
    first, *rest = pattern
    if first == "**":
        return any(matches(rest, name[count:]) for count in range(len(name) + 1))
    return bool(name) and first in ("*", name[0]) and matches(rest, name[1:])


def meant(pattern, name):
    return matches(pattern.split("/"), name.split("/"))


@given(
    st.lists(SEGMENTS | st.sampled_from(["*", "**"]), min_size=1, max_size=5),
    st.lists(SEGMENTS, min_size=1, max_size=5),
)
def test_regex_means_what_the_pattern_does(pattern, name):
    pattern, name = "/".join(pattern), "/".join(name)
    if pattern.count("**") <= 1:
        assert bool(regex(pattern).fullmatch(name)) == meant(pattern, name)


@given(PATTERNS)
def test_regex_matches_the_same_names(pattern):
    assert [name for name in NAMES if regex(pattern).fullmatch(name)] == [
        name for name in NAMES if meant(pattern, name)
    ]


@given(PATTERNS, PATTERNS)
def test_covers_is_what_an_enumeration_says(allowed, wanted):
    assert covers(allowed, wanted) == all(meant(allowed, name) for name in NAMES if meant(wanted, name))


def test_name_covers_itself_alone():
    assert covers("a/b", "a/b") and not covers("a/b", "a/*") and not covers("a/b", "a")
    assert covers("**", "a/**/b") and not covers("a/**", "**")


@pytest.mark.parametrize(
    "name", ["a", "a/b", "A-Z.~_@+0", "__DS", "a/__ds", "generationsx", "a..b", "...", "x" * MAX_CHARS]
)
def test_names_are_taken(name):
    assert check_name(name) == check_pattern(name) == name
    assert not is_pattern(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            ".",
            "..",
            "a/./b",
            "a/..",
            "a b",
            "a:b",
            "é",
            "a\n",
            "\n",
            "a%2Fb",
            "a?b",
            "a*b",
        ),
        *(f"{first}/a" for first in RESERVED),
        *RESERVED,
        "x" * (MAX_CHARS + 1),
        "a/" * MAX_SEGMENTS + "a",
        "a\0b",
        "a/b\u0000",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(InvalidInput) as refused:
        check_name(name, "Stream-Forked-From")
    assert refused.value.param == "Stream-Forked-From"


@pytest.mark.parametrize("pattern", ["*", "**", "a/*", "**/a", "a/**/b", "*/*/*", "*/" * (MAX_SEGMENTS - 1) + "a"])
def test_patterns_are_taken(pattern):
    assert check_pattern(pattern) == pattern
    assert is_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", ["a*", "***", "a/**b", "/*", "*/", "**//a", "**/**/**", "*\n", "[a]*", "*" + "/a" * MAX_CHARS, "%*"]
)
def test_other_patterns_are_refused(pattern):
    with pytest.raises(InvalidInput) as refused:
        check_pattern(pattern)
    assert refused.value.param == "topic"


@given(st.text(max_size=12))
def test_whatever_is_taken_can_be_matched(text):
    try:
        check_pattern(text)
    except InvalidInput:
        return
    assert re.compile(regex(text).pattern)
