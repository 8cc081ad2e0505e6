"""Waits for a generation's end, for clients that can't read a stream. Called by the routes of APIs that have
non-streaming responses.

In: an encoder of a generation. Out: its end, after waiting for it as any reader does.
"""

import msgspec
from flask import request

from everstream.errors import ClientLeft, GenerationCancelled, GenerationFailed, ShuttingDown
from everstream.log.entries import Entry
from everstream.web.context import app_context
from everstream.web.disconnect_watcher import DisconnectWatcher
from everstream.web.reader import Heartbeat, Queued
from everstream.web.sse import Encoder


def wait_for_end(encoder: Encoder, queue: str) -> Entry:
    """The terminal entry of the encoder's generation, `done`, whose job is or was in `queue`. Keeps none of the others.

    Meanwhile the generation counts as being read, until the client leaves. Raises EverstreamError if the generation
    ends otherwise.
    """
    follower = app_context().follower
    connection = request.environ.get("gunicorn.socket")
    reader = follower.reader(encoder, 0, None, queue)
    watcher = DisconnectWatcher(connection, reader.leave) if connection else None
    follower.register(reader)
    try:
        if watcher:
            watcher.start()
        while (item := follower.next(reader)) is not None:
            if not isinstance(item, (Heartbeat, Queued)) and item[-1].is_terminal:
                return _succeeded(item[-1])
    finally:
        follower.unregister(reader)
        if watcher:
            watcher.stop()
    if follower.draining:
        raise ShuttingDown("this process is shutting down; send the request again")
    raise ClientLeft


def _succeeded(end: Entry) -> Entry:
    if end.event == "done":
        return end
    said = msgspec.json.decode(end.data)
    if end.event == "cancelled":
        raise GenerationCancelled(f"the generation was stopped before it ended ({said.get('reason')})")
    raise GenerationFailed(said["message"], param=said.get("param"), code=said["code"])
