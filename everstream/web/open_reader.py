"""A reader for as long as its client waits: registered with its follower, and told when the client leaves. Used by
`streaming`, `topic_streaming` and `whole_response`.
"""

import socket
from typing import Generic, Protocol, TypeVar

from flask import request

from everstream.web import connections
from everstream.web.disconnect_watcher import DisconnectWatcher
from everstream.web.open_streams import OpenStream

R = TypeVar("R", bound=OpenStream)
R_contra = TypeVar("R_contra", bound=OpenStream, contravariant=True)


class Registry(Protocol[R_contra]):
    """A follower."""

    def register(self, reader: R_contra) -> None: ...

    def unregister(self, reader: R_contra) -> None: ...


def connection() -> socket.socket | None:
    """That of the current request's client; None if the server exposes none."""
    found: socket.socket | None = request.environ.get("gunicorn.socket")
    return found


class OpenReader(Generic[R]):
    """A context manager. Not a generator: one on each stream's stack would take half a kilobyte."""

    __slots__ = ("_client", "_follower", "_reader", "_watcher")

    def __init__(self, follower: Registry[R], reader: R, client: socket.socket | None) -> None:
        """`client`: its connection, if the server exposes it."""
        self._follower, self._reader, self._client = follower, reader, client
        self._watcher: DisconnectWatcher | None = None

    def __enter__(self) -> R:
        self._follower.register(self._reader)
        if self._client and not connections.is_shut_for_reading(self._client):
            self._watcher = DisconnectWatcher(self._client, self._reader.leave)
            self._watcher.start()
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._follower.unregister(self._reader)
        if self._watcher:
            self._watcher.stop()
