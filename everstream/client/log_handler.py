"""A `logging.Handler` that publishes each record to a topic."""

import logging
import traceback
from typing import Any

from everstream.client.messages import checked_topic, clean
from everstream.client.publisher import Publisher
from everstream.client.publishing import default_publisher
from everstream.client.sender import is_from_elsewhere


class LogHandler(logging.Handler):
    """Publishes `{"time", "level", "logger", "message"}`, and `exception` if there is one. It never waits: `flush` is
    the publisher's. Records about publishing itself are left out."""

    def __init__(self, topic: str, level: int | str = logging.NOTSET, *, publisher: Publisher | None = None) -> None:
        """Raises ValueError."""
        super().__init__(level)
        self._topic = checked_topic(topic)
        self._publisher = publisher or default_publisher()
        self.addFilter(is_from_elsewhere)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._publisher.publish(self._topic, _fields(record, self))
        except Exception:
            self.handleError(record)


def _fields(record: logging.LogRecord, handler: logging.Handler) -> dict[str, Any]:
    fields = {
        "time": record.created,
        "level": record.levelname,
        "logger": record.name,
        "message": clean(handler.format(record) if handler.formatter else record.getMessage()),
    }
    if record.exc_info and record.exc_info[0] is not None:
        fields["exception"] = clean("".join(traceback.format_exception(*record.exc_info)).rstrip())
    return fields
