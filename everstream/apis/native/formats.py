"""The encoders of our own events, and which of them, or of other APIs' formats, a request asks for. Called by
`routes`."""

from collections.abc import Mapping

from flask import request

from everstream.apis.native.ping_encoder import PingEncoder
from everstream.apis.native.text_encoder import TextEncoder
from everstream.errors import InvalidInput
from everstream.log.records import Generation
from everstream.web.access.principal import principal
from everstream.web.api import MakeEncoder
from everstream.web.context import app_context
from everstream.web.event_encoder import EventEncoder


def own_encoder(generation: Generation) -> EventEncoder:
    return EventEncoder(generation.id, generation.model, app_context().credentials.signature(generation))


def text_encoder(generation: Generation) -> TextEncoder:
    return TextEncoder(generation.id, generation.model, app_context().credentials.signature(generation))


def ping_encoder(generation: Generation) -> PingEncoder:
    interval_ms = int(app_context().settings.heartbeat_s * 1000)
    return PingEncoder(generation, interval_ms, app_context().credentials.signature(generation))


FORMATS: Mapping[str, MakeEncoder] = {"text": text_encoder}
"""Those with a name. The ids of their events are signed, if the request has a ticket."""


def wanted_encoder() -> MakeEncoder:
    """The one that `?format=` or `?ping=` asks for, or our own. Raises InvalidInput."""
    if not _wants_pings():
        return _wanted_format()
    if request.args.get("format", ""):
        raise InvalidInput("ping is for events without a format", param="ping")
    return ping_encoder


def stream_encoder() -> MakeEncoder:
    """The same for `/stream`, which has no `?ping=`. Raises InvalidInput."""
    return own_encoder if "format" not in request.args or format_is_an_input() else _wanted_format()


def format_is_an_input() -> bool:
    """Whether `format` in `/stream`'s query is the model's: a single model may have an input that is called so."""
    return app_context().models.only_one_takes("format")


def _wanted_format() -> MakeEncoder:
    name, formats = request.args.get("format", ""), app_context().formats
    if not name:
        return own_encoder
    if name not in formats:
        raise InvalidInput(f"format must be one of {', '.join(formats)}, or left out", param="format")
    if name not in FORMATS and principal().ticket:
        raise InvalidInput(f"with a ticket, format must be {', '.join(FORMATS)}, or left out", param="format")
    return formats[name]


def _wants_pings() -> bool:
    given = request.args.get("ping", "")
    if given not in ("", "true", "false"):
        raise InvalidInput("ping must be true or false", param="ping")
    return given == "true"
