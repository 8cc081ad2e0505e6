"""What processes write to stderr: JSON, one object a line, or text if stderr is a terminal. Called once per process.

Each line has the time, the level and, where one is known, the first eight digits of the generation that it is about,
and the request's id. None has prompts, outputs, keys, or ids that give access.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

ACCESS = "everstream.access"
SHOWN_DIGITS = 8
"""Of a generation's id: enough to find it in other lines, and too few to read it."""
FIELDS = "fields"
"""The attribute of a record that holds an access line's own fields; see `access_line`."""

Context = Callable[[], Mapping[str, Any]]


def nothing() -> Mapping[str, Any]:
    return {}


def dict_config(level: str, log_format: str, context: Context = nothing) -> dict[str, Any]:
    """For `logging.config.dictConfig`. `log_format`: auto, json or text. `context`: the fields of what the process is
    doing at the moment."""
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    formatter = {"()": JsonLines if is_json else TextLines, "context": context}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines", "stream": "ext://sys.stderr"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": {"level": level.upper(), "handlers": ["stderr"], "propagate": False}},
    }


def access_line(logger: logging.Logger, fields: Mapping[str, Any], *, level: int = logging.INFO) -> None:
    """Log these fields. None: left out."""
    if logger.isEnabledFor(level):
        given = {name: value for name, value in fields.items() if value is not None}
        # Without the search for the caller, which no access line shows.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, "access", (), None, extra={FIELDS: given}))


class JsonLines(logging.Formatter):
    def __init__(self, context: Context = nothing) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields: Mapping[str, Any] | None = getattr(record, FIELDS, None)
        if fields is not None:
            return json.dumps({**line, **fields})
        line |= {"message": record.getMessage(), **self._context()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """The message alone, as a supervisor or a terminal shows when and from where it comes."""

    def __init__(self, context: Context = nothing) -> None:  # noqa: ARG002 - as JsonLines
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] | None = getattr(record, FIELDS, None)
        if fields is None:
            return super().format(record)
        # A name from an identity provider must not look like another line.
        return "".join(each if each.isprintable() else "?" for each in " ".join(map(str, fields.values())))
