"""Generations as the AI SDK's clients name them: by a run's id, which is the generation's, or by their chat's. Called
by `routes`.

A chat's id is the client's own choice, so it counts only for its owner. Where there are no keys, whoever knows it can
read the chat's newest answer; so it must be as hard to guess as a request id, or it finds nothing.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from everstream.apis.ai_sdk.message_chunks import MessageChunks
from everstream.log.entries import Entry
from everstream.log.records import Generation
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.json_response import read_page
from everstream.web.sse import GENERATION_ID
from everstream.web.submission import is_request_id

_GENERATION = re.compile(GENERATION_ID, re.ASCII)
CONTINUATION = b'{"type":"ui-message-step"}'
"""The record of a generation whose step goes on from a message that the client has."""


class Counted(NamedTuple):
    """How many chunks a run has made so far, and whether it made its last."""

    chunks: int
    is_over: bool


def find(run: str) -> Generation | None:
    """By its id, or the newest of the chat with this id. None: there is none, or it isn't the viewer's."""
    context, viewer = app_context(), principal()
    known = context.follower.lookup(run, viewer) if _GENERATION.fullmatch(run) else None
    if known is None and (chat := thread(run)) and (newest := context.log.newest(chat, viewer.owner)):
        known = context.follower.lookup(newest, viewer)
    return known


def thread(chat: str) -> str:
    """What the log calls a chat. Empty: its id would be too easy to guess."""
    return chat if is_request_id(chat) else ""


def is_continuation(generation: Generation) -> bool:
    return app_context().log.record(generation.id) == CONTINUATION


def count(generation: Generation) -> Counted:
    """Reads its whole log, a page at a time."""
    made = MessageChunks(generation, is_continuation=False)
    chunks, is_over = len(made.start()), False
    for entry in _entries(generation.id):
        chunks += len(made.entry(entry))
        is_over = entry.is_terminal
    return Counted(chunks, is_over)


def _entries(generation: str) -> Iterator[Entry]:
    after = 0
    while entries := read_page(app_context(), generation, after).entries:
        yield from entries
        after = entries[-1].n
