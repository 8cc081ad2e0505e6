"""A message as a line of output. Pure."""

import json
import time
import zlib

from everstream.client import Message

_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)
_FAINT = 2


def as_json(message: Message) -> str:
    fields = {"topic": message.topic, "data": message.data, "event": message.event or None, "id": message.id}
    return json.dumps({**fields, "time": message.time}, ensure_ascii=True) + "\n"


def as_text(message: Message, *, has_colour: bool) -> str:
    """The local time, the topic, the event's name if it has one, and the data."""

    def coloured(text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if has_colour else text

    parts = [coloured(_clock(message.time), _FAINT), coloured(printable(message.topic), _colour_of(message.topic))]
    if message.event:
        parts.append(coloured(f"[{printable(message.event)}]", _FAINT))
    return " ".join([*parts, _body(message)]) + "\n"


def printable(text: str) -> str:
    """A message must not be able to control the terminal: what is not printable is escaped."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _body(message: Message) -> str:
    data = message.data
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(", ", ": "))
    return "\n    ".join(map(printable, text.split("\n")))


def _escaped(char: str) -> str:
    return "    " if char == "\t" else char.encode("unicode_escape", "backslashreplace").decode()


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}"


def _colour_of(topic: str) -> int:
    """The same in each run."""
    return _COLOURS[zlib.crc32(topic.encode()) % len(_COLOURS)]
