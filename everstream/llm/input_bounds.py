"""Bounds on inputs that are JSON, above all on what vLLM compiles into a grammar: schemas, patterns, tools. Pure.
Called by `messages.check_inputs`.

vLLM makes the grammar in the engine's event loop, so one that takes long stops all streams, and one that takes too much
memory ends the engine. What it costs grows with the square of a pattern's repetitions: `a{1,1000}` takes 0.16 s,
`a{1,10000}` 29 s; and with the objects of a schema: 8,000 take 1.7 s [measured with xgrammar, on one core].
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from everstream.errors import InvalidInput

MAX_REPETITIONS = 1000
"""The sum of all bounds in a pattern, such as the 8 of `[a-z]{2,8}`."""
MAX_CONTAINERS = 2000
"""Arrays and objects."""
MAX_PROPERTIES = 256
"""Of one object of a schema. A grammar for 2,000 that are optional takes half a minute."""
MAX_TOOLS = 256
MAX_VALUES = 20_000
"""All that an input holds: vLLM checks each, in the event loop."""
KINDS: Mapping[str, tuple[type, str]] = {
    "response_format": (dict, "an object"),
    "structured_outputs": (dict, "an object"),
    "tools": (list, "an array"),
    "documents": (list, "an array"),
    "chat_template_kwargs": (dict, "an object"),
    "logit_bias": (dict, "an object"),
}
_OF_PATTERNS = ("pattern", "regex", "grammar", "json", "structural_tag")
"""Keys whose text is a pattern, or holds some."""
_JSON_TEXTS = ("json", "structural_tag")
"""Of `structured_outputs`: may be given as JSON text."""
_BOUND = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}", re.ASCII)


def check_bounds(inputs: Mapping[str, Any]) -> None:
    """Check the inputs that are JSON. Raises InvalidInput."""
    inputs = _with_texts_parsed(inputs)
    for name, (kind, in_words) in KINDS.items():
        if name in inputs:
            if not isinstance(inputs[name], kind):
                raise InvalidInput(f"{name} must be {in_words}", param=name)
            _check(name, inputs[name])
    for name, schema in _schemas(inputs):
        if _leads_nowhere(schema):
            raise InvalidInput(f"{name} has a schema with a $ref that leads back to itself", param=name)
    if len(inputs.get("tools", ())) > MAX_TOOLS:
        raise InvalidInput(f"there are {len(inputs['tools'])} tools; at most {MAX_TOOLS} are allowed", param="tools")


def _with_texts_parsed(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same with `_JSON_TEXTS` as values. What isn't JSON stays as it is, for vLLM to refuse."""
    given = inputs.get("structured_outputs")
    if not isinstance(given, dict):
        return inputs
    parsed = {name: _parsed(given[name]) for name in _JSON_TEXTS if name in given}
    return {**inputs, "structured_outputs": given | parsed}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except RecursionError:
        raise InvalidInput("structured_outputs is nested too deep", param="structured_outputs") from None
    except ValueError:
        return value


def _schemas(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each JSON Schema that vLLM makes a grammar of, and the input that holds it. Whatever has another form is vLLM's
    to refuse."""
    yield "structured_outputs", _at(inputs, "structured_outputs", "json")
    yield "response_format", _at(inputs, "response_format", "json_schema", "schema")
    for tool in inputs.get("tools", ()):
        yield "tools", _at(tool, "function", "parameters")


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _leads_nowhere(schema: Any) -> bool:
    """Whether some reference refers to itself, through others too, so that no value can match."""
    followed: set[str] = set()
    for part in _containers(schema):
        own: set[str] = set()
        node: Any = part
        while isinstance(node, dict) and isinstance(reference := node.get("$ref"), str) and reference.startswith("#"):
            if reference in own:
                return True
            if reference in followed:
                break
            own.add(reference)
            node = _at(schema, *filter(None, reference[1:].split("/")))
        followed |= own
    return False


def _check(name: str, value: Any) -> None:
    repetitions = values = 0
    for number, part in enumerate(_containers(value), 1):
        values += len(part)
        _bound(name, values, MAX_VALUES, "values")
        _bound(name, number, MAX_CONTAINERS, "arrays and objects")
        if isinstance(part, dict):
            if isinstance(properties := part.get("properties"), dict):
                _bound(name, len(properties), MAX_PROPERTIES, "properties in one object")
            repetitions += sum(map(_repetitions, _patterns(part)))
    _bound(name, repetitions, MAX_REPETITIONS, "repetitions in its patterns")


def _bound(name: str, count: int, most: int, what: str) -> None:
    if count > most:
        raise InvalidInput(f"{name} has more than {most} {what}", param=name)


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
