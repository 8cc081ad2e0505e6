"""The objects that routes work with. `factory` makes them once per web process."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from flask import current_app

from everstream.log.presence import PresenceLog
from everstream.log.topic_log import TopicLog
from everstream.log.web_log import WebLog
from everstream.settings import Settings
from everstream.web.access.client_limits import ClientLimits
from everstream.web.access.credentials import Credentials
from everstream.web.api import Api, MakeEncoder
from everstream.web.follower import Follower
from everstream.web.models import Models
from everstream.web.open_streams import OpenStreams
from everstream.web.prompt_validation import PromptValidator
from everstream.web.topic_follower import TopicFollower

if TYPE_CHECKING:
    from everstream.otel import Tracing
    from everstream.web.stream_slots import ClientSlots

EXTENSION = "everstream"


class AppContext(msgspec.Struct):
    settings: Settings
    log: WebLog
    streams: OpenStreams
    follower: Follower
    topics: TopicLog
    presence: PresenceLog
    topic_follower: TopicFollower
    validator: PromptValidator
    models: Models
    credentials: Credentials
    limits: ClientLimits
    client_slots: "ClientSlots"
    formats: Mapping[str, MakeEncoder]
    """All APIs' formats of events, by name."""
    apis: Sequence[Api] = ()
    writes_directly: bool = False
    tracing: "Tracing | None" = None

    def allow_direct_writes(self) -> None:
        """Call if the server's connections are plain HTTP/1.1 sockets, which a `DirectWriter` may write to."""
        self.writes_directly = True

    def trace_requests(self, tracing: "Tracing | None") -> None:
        """Call after the fork."""
        self.tracing = tracing


def app_context() -> AppContext:
    """The context of the application that serves this request."""
    found: AppContext = current_app.extensions[EXTENSION]
    return found
