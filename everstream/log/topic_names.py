"""Names of topics, and patterns of them: `news/*` is every name with one more segment, `news/**` also those with none
or several. Pure."""

import re
from collections.abc import Iterator
from functools import lru_cache

from everstream.errors import InvalidInput

MAX_CHARS = 200
MAX_SEGMENTS = 16
"""Of a name or a pattern: names are compared part by part, while Valkey does nothing else."""
SEGMENT = r"[A-Za-z0-9._~@+-]+"
NAME = rf"{SEGMENT}(?:/{SEGMENT}){{0,{MAX_SEGMENTS - 1}}}"
RESERVED = ("__ds", "generations")
"""First segments of other things that Durable Streams' addresses name."""
_NAME = re.compile(NAME, re.ASCII)
_PATTERN = re.compile(rf"(?:{SEGMENT}|\*\*?)(?:/(?:{SEGMENT}|\*\*?))*", re.ASCII)


def check_name(text: str, param: str = "topic") -> str:
    """Returns it. Raises InvalidInput."""
    segments = text.split("/")
    is_plain = len(text) <= MAX_CHARS and _NAME.fullmatch(text) and not {".", ".."} & set(segments)
    if not is_plain or segments[0] in RESERVED:
        raise InvalidInput(
            f"a topic's name has up to {MAX_CHARS} characters of A-Z a-z 0-9 . _ ~ @ + -, and / between its parts, of "
            f"which there are up to {MAX_SEGMENTS}; the first is not {' or '.join(RESERVED)}",
            param=param,
        )
    return text


def check_pattern(text: str, param: str = "topic") -> str:
    """A name, or a pattern. Returns it. Raises InvalidInput."""
    if not is_pattern(text):
        return check_name(text, param)
    segments = text.split("/")
    is_short = len(text) <= MAX_CHARS and len(segments) <= MAX_SEGMENTS
    # Of two, the first could stand for many numbers of parts, and all of them would have to be tried.
    if not is_short or not _PATTERN.fullmatch(text) or segments.count("**") > 1:
        raise InvalidInput(
            "a pattern is a topic's name in which * stands for one of its parts, and ** for any number of them, once",
            param=param,
        )
    return text


def is_pattern(text: str) -> bool:
    return "*" in text


@lru_cache(1000)
def regex(pattern: str) -> re.Pattern[str]:
    """Matches the names that a pattern stands for."""
    one = {"*": "[^/]+"}
    before, several, after = (
        [one.get(each, re.escape(each)) for each in part.split("/") if each] for part in _parted(pattern)
    )
    if not several:
        return re.compile("/".join(before))
    # `**` stands for nothing, and then has no slash either, or for one part or several.
    alternatives = ("/".join([*before, *between, *after]) for between in ([], [".+"]))
    return re.compile("|".join(f"(?:{text})" for text in alternatives if text))


def _parted(pattern: str) -> tuple[str, str, str]:
    """Around its `**`, if it has one."""
    return pattern.partition("**")


def covers(allowed: str, wanted: str) -> bool:
    """Whether `allowed` stands for each name that `wanted`, a name or a pattern, stands for."""
    # What has no `**` has names of one length, so it can't match all three of these.
    lengths: tuple[list[str], ...] = ([], ["*"], ["*"] * MAX_CHARS)
    texts = ("/".join(_replaced(wanted.split("/"), stars)) for stars in lengths)
    return all(regex(allowed).fullmatch(text) for text in texts if text)


def _replaced(segments: list[str], stars: list[str]) -> Iterator[str]:
    for segment in segments:
        yield from stars if segment == "**" else [segment]
