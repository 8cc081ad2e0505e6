"""What an HTTP response means: success, a refusal, or a reason to try again. Pure."""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

from everstream.client.errors import EverstreamError, ProducerFenced, RequestRefused, Unavailable
from everstream.client.events import is_generation

EXPIRED = "generation_expired"
MAX_REPLY_BYTES = 1 << 20
MAX_RETRY_AFTER_S = 3600.0
_MAX_MESSAGE_CHARS = 1000
_NUMBER = re.compile("[0-9]{1,15}")
_WORTH_WAITING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Reply(NamedTuple):
    """`headers`: with lower-case names, or in a mapping that ignores case. `now`: the wall clock, in seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    now: float = 0.0

    @property
    def is_stream(self) -> bool:
        media = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return self.status == HTTPStatus.OK and media == "text/event-stream"


def started(reply: Reply) -> str:
    """The id of the generation that a POST has started. Raises RequestRefused, Unavailable."""
    generation = _fields(reply).get("id") if reply.status in (HTTPStatus.OK, HTTPStatus.CREATED) else None
    if not is_generation(generation):
        raise problem(reply)
    return str(generation)


def stopped(reply: Reply) -> str:
    """The state after a DELETE: `stopping`, or that of a generation that had ended. Raises like `started`."""
    state = _fields(reply).get("state") if reply.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED) else None
    if isinstance(state, str):
        return state
    error = problem(reply)
    if error.code == EXPIRED:
        # Nothing is left to stop.
        return "expired"
    raise error


def shown(reply: Reply) -> dict[str, Any]:
    """A generation's snapshot. Raises like `started`."""
    fields = _fields(reply) if reply.status == HTTPStatus.OK else {}
    if not isinstance(fields.get("state"), str):
        raise problem(reply)
    return fields


def made(reply: Reply) -> None:
    """Raises RequestRefused, Unavailable."""
    if reply.status not in (HTTPStatus.OK, HTTPStatus.CREATED) or "topic" not in _fields(reply):
        raise problem(reply)


def published(reply: Reply) -> tuple[str, ...]:
    """The positions of the messages that a POST has published; empty if it had published them before. Raises
    ProducerFenced, RequestRefused, Unavailable."""
    positions = _fields(reply).get("ids") if reply.status == HTTPStatus.OK else None
    if isinstance(positions, list):
        return tuple(map(str, positions))
    raise _fence(reply) or problem(reply)


def _fence(reply: Reply) -> ProducerFenced | None:
    """Of a producer with an old epoch, or whose numbers skip some: the service's state of it is lost."""
    epoch = reply.headers.get("producer-epoch", "") if reply.status == HTTPStatus.FORBIDDEN else ""
    is_gap = reply.status == HTTPStatus.CONFLICT and "producer-expected-seq" in reply.headers
    if not is_gap and not _NUMBER.fullmatch(epoch):
        return None
    code, message, _ = _said(reply)
    error = ProducerFenced(code, message, status=reply.status)
    error.epoch = int(epoch or 0)
    return error


def problem(reply: Reply) -> EverstreamError:
    """The error that a response without the expected content stands for."""
    code, message, param = _said(reply)
    if reply.status in _WORTH_WAITING or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        unavailable = Unavailable(code, message, status=reply.status, param=param)
        unavailable.retry_after_s = _retry_after_s(reply)
        return unavailable
    if reply.status >= HTTPStatus.BAD_REQUEST:
        return RequestRefused(code, message, status=reply.status, param=param)
    if reply.status >= HTTPStatus.MULTIPLE_CHOICES:
        # Following it could hand the headers, which may hold a key, to another host.
        where = reply.headers.get("location", "elsewhere")[:_MAX_MESSAGE_CHARS]
        return RequestRefused("redirected", f"the address is redirected to {where}", status=reply.status)
    message = "the response is not Everstream's; a proxy may have made it"
    return Unavailable("unexpected_response", message, status=reply.status)


def _said(reply: Reply) -> tuple[str, str, str | None]:
    """The code, message and param in Everstream's form; or, if a proxy made the response, what the status says."""
    error = _fields(reply).get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), str):
        param = error.get("param")
        message = str(error.get("message", ""))[:_MAX_MESSAGE_CHARS]
        return error["code"], message, param if isinstance(param, str) else None
    return f"http_{reply.status}", f"the server or a proxy answers with status {reply.status}", None


def _fields(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after_s(reply: Reply) -> float:
    """Seconds or a date, RFC 9110, section 10.2.3."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - reply.now, 0.0), MAX_RETRY_AFTER_S)
    except (ValueError, OverflowError):
        return 0.0
