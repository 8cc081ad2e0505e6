"""Names of topics, and patterns of them: `news/*` is every name with one more segment, `news/**` also those with none
or several. Pure."""

import itertools
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from everstream.errors import InvalidInput

MAX_CHARS = 200
SEGMENT = r"[A-Za-z0-9._~@+-]+"
NAME = rf"{SEGMENT}(?:/{SEGMENT})*"
RESERVED = ("__ds", "generations")
"""First segments of other things that Durable Streams' addresses name."""
MAX_DOUBLE = 2
"""Of `**` in one pattern: each doubles the work to find names."""
_NAME = re.compile(NAME, re.ASCII)
_PATTERN = re.compile(rf"(?:{SEGMENT}|\*\*?)(?:/(?:{SEGMENT}|\*\*?))*", re.ASCII)


def check_name(text: str, param: str = "topic") -> str:
    """Returns it. Raises InvalidInput."""
    segments = text.split("/")
    if len(text) > MAX_CHARS or not _NAME.fullmatch(text) or segments[0] in RESERVED or {".", ".."} & set(segments):
        raise InvalidInput(
            f"a topic's name has up to {MAX_CHARS} characters of A-Z a-z 0-9 . _ ~ @ + -, and / between its parts; "
            f"the first part is not {' or '.join(RESERVED)}",
            param=param,
        )
    return text


def check_pattern(text: str, param: str = "topic") -> str:
    """A name, or a pattern. Returns it. Raises InvalidInput."""
    if not is_pattern(text):
        return check_name(text, param)
    if len(text) > MAX_CHARS or not _PATTERN.fullmatch(text) or text.split("/").count("**") > MAX_DOUBLE:
        raise InvalidInput(
            "a pattern is a topic's name in which * stands for one of its parts, and ** for any number of them "
            f"(at most {MAX_DOUBLE} times)",
            param=param,
        )
    return text


def is_pattern(text: str) -> bool:
    return "*" in text


@lru_cache(1000)
def regex(pattern: str) -> re.Pattern[str]:
    """Matches the names that a pattern stands for."""
    return re.compile("|".join(f"(?:{text})" for text in _alternatives(pattern, re.escape, "[^/]+", ".+")))


def lua_patterns(pattern: str) -> list[str]:
    """The same for Lua: a name matches if it matches one of them."""
    return [f"^{text}$" for text in _alternatives(pattern, _escaped_for_lua, "[^/]+", ".+")]


def _alternatives(pattern: str, escape: Callable[[str], str], one: str, several: str) -> list[str]:
    """A `**` stands for nothing, and then has no slash either, or for one or several segments."""
    choices = [
        [None, several] if each == "**" else [one if each == "*" else escape(each)] for each in pattern.split("/")
    ]
    found = ("/".join(part for part in parts if part is not None) for parts in itertools.product(*choices))
    return [text for text in found if text]


def _escaped_for_lua(text: str) -> str:
    return re.sub(r"([^A-Za-z0-9])", r"%\1", text)


def covers(allowed: str, wanted: str) -> bool:
    """Whether `allowed` stands for each name that `wanted`, a name or a pattern, stands for."""
    # What has no `**` has names of one length, so it can't match all three of these.
    lengths: tuple[list[str], ...] = ([], ["*"], ["*"] * MAX_CHARS)
    texts = ("/".join(_replaced(wanted.split("/"), stars)) for stars in lengths)
    return all(regex(allowed).fullmatch(text) for text in texts if text)


def _replaced(segments: list[str], stars: list[str]) -> Iterator[str]:
    for segment in segments:
        yield from stars if segment == "**" else [segment]
