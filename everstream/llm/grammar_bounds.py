"""Bounds on what vLLM compiles into a grammar: schemas, patterns, tools. Pure; called by `messages.check_inputs`.

vLLM makes the grammar in the engine's event loop, so one that takes long stops all streams, and one that takes too much
memory ends the engine. What it costs grows with the square of a pattern's repetitions: `a{1,1000}` takes 0.16 s,
`a{1,10000}` 29 s; and with the objects of a schema: 8,000 take 1.7 s [measured with xgrammar, on one core].
"""

import re
from collections.abc import Iterator
from typing import Any

from everstream.errors import InvalidInput

MAX_REPETITIONS = 1000
"""The sum of all bounds in a pattern, such as the 8 of `[a-z]{2,8}`."""
MAX_CONTAINERS = 4000
"""Arrays and objects."""
INPUTS = ("response_format", "structured_outputs", "tools")
_OF_PATTERNS = ("pattern", "regex", "grammar", "json", "structural_tag")
"""Keys whose text is a pattern, or holds some."""
_BOUND = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.ASCII)


def check_grammars(inputs: dict[str, Any]) -> None:
    """Raises InvalidInput."""
    for name in INPUTS:
        if name in inputs:
            _check(name, inputs[name])


def _check(name: str, value: Any) -> None:
    repetitions = 0
    for number, part in enumerate(_containers(value), 1):
        repetitions += sum(map(_repetitions, _patterns(part))) if isinstance(part, dict) else 0
        if number > MAX_CONTAINERS:
            raise InvalidInput(f"{name} has more than {MAX_CONTAINERS} arrays and objects", param=name)
    if repetitions > MAX_REPETITIONS:
        raise InvalidInput(
            f"the patterns in {name} allow {repetitions} repetitions; at most {MAX_REPETITIONS} are allowed in all",
            param=name,
        )


def _containers(value: Any) -> Iterator[dict[str, Any] | list[Any]]:
    """Every array and object in a value. Not recursive, as a client decides how deep it is."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, (dict, list)):
            yield part
            rest += part.values() if isinstance(part, dict) else part


def _patterns(part: dict[str, Any]) -> Iterator[str]:
    for name, value in part.items():
        if name in _OF_PATTERNS and isinstance(value, str):
            yield value
        elif name == "patternProperties" and isinstance(value, dict):
            yield from value


def _repetitions(pattern: str) -> int:
    # Python refuses to parse numbers of thousands of digits; the first nine are too many already.
    return sum(int((most or least)[:9]) for least, most in _BOUND.findall(pattern))
