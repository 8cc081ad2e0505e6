"""Responses that the log still has: their records, and what was said. Called by `routes`.

In: the ids of responses and of their items. Out: the response object, its input, or a conversation to go on with. Each
read of a record is one command, whatever the length of the conversation before it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from everstream.apis.openai.responses import history, record
from everstream.apis.openai.responses.events import ResponseEvents
from everstream.apis.openai.responses.items import Item
from everstream.apis.openai.responses.record import NO_RECORD, Record
from everstream.apis.openai.responses.requests import Request
from everstream.errors import InvalidInput, UnknownResponse
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from everstream.web.access.principal import principal
from everstream.web.context import app_context
from everstream.web.json_response import read_page

MAX_REFERENCED = 64
"""So many responses' items can one request refer to, because each has to be read."""


class StoredResponse(NamedTuple):
    generation: Generation
    record: Record


def find(response_id: str) -> StoredResponse:
    """Raises UnknownResponse."""
    generation = history.generation_of(response_id)
    found = _find(generation) if generation else None
    if found is None:
        raise UnknownResponse(f"Response with id {response_id[:100]!r} not found.")
    return found


def record_of(generation: str) -> Record:
    """That of a generation which may be another API's."""
    return record.decoded(app_context().log.record(generation)) or NO_RECORD


def events_of(stored: StoredResponse) -> ResponseEvents:
    """To be fed with the generation's entries."""
    return ResponseEvents(stored.generation, stored.record.echoed, is_background=stored.record.is_background)


def response(stored: StoredResponse) -> dict[str, Any]:
    """The response object. It has no output before its end."""
    events = events_of(stored)
    if stored.generation.state == "open":
        app_context().follower.mark_read(stored.generation.id)
        return events.response() | {"status": _status(stored)}
    for entry in _entries(stored.generation):
        events.entry(entry)
    return events.response()


def conversation(request: Request) -> list[Item]:
    """The request's items, after those of the response that it continues. Raises InvalidInput."""
    before = _previous(request.previous_response_id) if request.previous_response_id else []
    wanted = history.references(request.items) - {item.id for item in before}
    return history.continued(before, request.items, _referenced(wanted))


def _find(generation: str) -> StoredResponse | None:
    known = app_context().follower.lookup(generation, principal())
    kept = record.decoded(app_context().log.record(generation)) if known else None
    return StoredResponse(known, kept) if known and kept and kept.is_stored else None


def _status(stored: StoredResponse) -> str:
    generation, kept = stored
    is_queued = kept.is_background and generation.id in app_context().log.positions(generation.queue)
    return "queued" if is_queued else "in_progress"


def _entries(generation: Generation) -> Iterator[Entry]:
    after = 0
    while entries := read_page(app_context(), generation.id, after).entries:
        yield from entries
        after = entries[-1].n


def _previous(response_id: str) -> list[Item]:
    """A response's conversation with its answer."""
    try:
        stored = find(response_id)
    except UnknownResponse:
        raise InvalidInput(
            f"Previous response with id {response_id[:100]!r} not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        ) from None
    if stored.generation.state == "open":
        raise InvalidInput(
            f"The response {response_id!r} is still in progress; wait for its end.", param="previous_response_id"
        )
    return history.answered(stored.record.items(stored.generation.id), _output(stored))


def _output(stored: StoredResponse) -> list[Item]:
    """As items of an input."""
    output = response(stored)["output"]
    return msgspec.json.decode(encode_json(output), type=list[Item])


def _referenced(item_ids: set[str]) -> dict[str, Item]:
    """The items with these ids, as far as they are known. Raises InvalidInput."""
    generations = {generation for item_id in item_ids if (generation := history.generation_with(item_id))}
    if len(generations) > MAX_REFERENCED:
        raise InvalidInput(f"input refers to items of more than {MAX_REFERENCED} responses", param="input")
    found = {}
    for generation in generations:
        if (stored := _find(generation)) is not None:
            for item in (*stored.record.items(generation), *_output(stored)):
                if item.id in item_ids:
                    found[item.id] = item
    return found
