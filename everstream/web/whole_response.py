"""Waits for a generation's end, for clients that can't read a stream. Called by the routes of APIs that have
non-streaming responses.

In: an encoder of a generation. Out: its end, or all of its entries, after waiting for them as any reader does.
"""

from collections.abc import Iterator

from everstream.errors import ClientLeft, ShuttingDown
from everstream.log.entries import Entry, failure
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.open_reader import OpenReader, connection
from everstream.web.open_streams import StreamClient
from everstream.web.sse import Encoder


def wait_for_end(encoder: Encoder, queue: str) -> Entry:
    """The terminal entry of the encoder's generation, `done`, whose job is or was in `queue`. Keeps none of the others.

    Meanwhile the generation counts as being read, until the client leaves. Raises EverstreamError if the generation
    ends otherwise.
    """
    last = wait_for_terminal(encoder, queue)
    if last.event != "done":
        raise failure(last)
    return last


def wait_for_terminal(encoder: Encoder, queue: str) -> Entry:
    """The terminal entry, however the generation ends."""
    for entries in _batches(encoder, queue):
        last = entries[-1]
    return last


def wait_for_all(encoder: Encoder, queue: str) -> list[Entry]:
    """All entries, with `done` at the end. Raises EverstreamError likewise."""
    entries = [entry for batch in _batches(encoder, queue) for entry in batch]
    if entries[-1].event != "done":
        raise failure(entries[-1])
    return entries


def _batches(encoder: Encoder, queue: str) -> Iterator[list[Entry]]:
    """The entries as they come, up to the terminal one."""
    follower = app_context().follower
    waiting = follower.reader(encoder, 0, queue, StreamClient(principal().credential))
    with OpenReader(follower, waiting, connection()) as reader:
        while (item := follower.next(reader)) is not None:
            # Neither heartbeats nor news about the queue and the engines.
            if isinstance(item, list):
                yield item
                if item[-1].is_terminal:
                    return
    if reader.is_drained:
        raise ShuttingDown("this process is shutting down; send the request again")
    raise ClientLeft
