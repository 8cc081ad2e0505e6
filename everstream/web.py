"""What the routes work with, made once per web process."""

from typing import Any

import msgspec
from flask import current_app

from everstream.asking import Asking
from everstream.follower import Follower
from everstream.inputs import Schema
from everstream.settings import Settings
from everstream.web_log import WebLog

EXTENSION = "everstream"


class Web(msgspec.Struct):
    """`writes_straight`: the server's connections are plain HTTP/1.1 sockets, so an `Outlet` may write to them."""

    settings: Settings
    log: WebLog
    follower: Follower
    asking: Asking
    schema: Schema
    check_inputs: Any
    writes_straight: bool = False


def web() -> Web:
    """Of the application that serves this request."""
    found: Web = current_app.extensions[EXTENSION]
    return found
