"""A response as it comes into being: a state machine without I/O. Log entries in, numbered events out.

The events follow from the generation, its record and its entries alone. So any process makes the same ones with the
same numbers, and a client that comes back gets those that it has not seen. The same machine makes the whole response.
"""

from collections.abc import Mapping
from typing import Any

from everstream.apis.openai.responses import output
from everstream.apis.openai.responses.open_items import OpenMessage
from everstream.apis.openai.responses.output import Event, Lifecycle
from everstream.apis.openai.responses.output_items import OutputItems
from everstream.apis.openai.responses.response import failure, response_object, usage
from everstream.contract.chat_outputs import Ending, ending, pieces
from everstream.errors import EverstreamError
from everstream.log.entries import TOKEN, Entry
from everstream.log.records import Generation

_REASONS = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
    "abort": None,
    "error": None,
    "repetition": None,
}
"""The finish reasons of an answer that is not whole, and OpenAI's words for them."""


class ResponseEvents:
    """One generation's events. Feed it every entry, from the first."""

    def __init__(self, generation: Generation, echoed: Mapping[str, Any], *, is_background: bool) -> None:
        """`echoed`: from `response.echo`."""
        self._begun = response_object(generation, echoed)
        self._status = "queued" if is_background else "in_progress"
        self._ending: dict[str, Any] = {}
        self.sequence_number = -1
        """Of the last event."""
        self._items = OutputItems(generation.id)

    def opening(self) -> list[Event]:
        """The first events, before any entry. A background response counts as queued until its first output."""
        second: type[Lifecycle] = output.Queued if self._status == "queued" else output.InProgress
        return self._numbered([output.Created(self.response()), second(self.response())])

    def entry(self, entry: Entry, joined: int = 1) -> list[Event]:
        """The events of the next entry; none, if it tells the client nothing. `joined`: so many outputs are in it, of
        text alone. Its only delta then has the number of the last of theirs, so that all other numbers stay."""
        if entry.event == TOKEN:
            events = [*self._leave_queue(), *self._items.add(pieces(entry.data))]
            return self._numbered(events, joined)
        return self._numbered(self._end(entry)) if entry.is_terminal else []

    @property
    def open_message(self) -> OpenMessage | None:
        """What a text would only go on with. Instead of an entry, `more_text` may then be called."""
        return self._items.open_message

    def more_text(self, literal: bytes, joined: int) -> int:
        """The number of the delta, for an entry that is a text alone, as a JSON string."""
        assert self._items.open_message is not None
        self._items.open_message.add_literal(literal)
        self.sequence_number += joined
        return self.sequence_number

    def heartbeat(self) -> Event:
        """The response without its output, in an event that takes no number: it repeats the last one."""
        event: type[Lifecycle] = output.Queued if self._status == "queued" else output.InProgress
        return event(self._begun | {"status": self._status}, sequence_number=self.sequence_number)

    def lost(self, error: EverstreamError) -> Event:
        """Ends a stream whose log can't supply the end. Takes no number either, because the log may supply it later."""
        number = max(self.sequence_number, 0)
        return output.Error(error.code, error.message, error.param, sequence_number=number)

    def response(self) -> dict[str, Any]:
        """The response with its output so far."""
        return self._begun | {"status": self._status, "output": self._items.so_far()} | self._ending

    def _numbered(self, events: list[Event], joined: int = 1) -> list[Event]:
        for event in events:
            self.sequence_number += joined if isinstance(event, output.TextDelta) else 1
            event.sequence_number = self.sequence_number
        return events

    def _leave_queue(self) -> list[Event]:
        if self._status != "queued":
            return []
        self._status = "in_progress"
        return [output.InProgress(self.response())]

    def _end(self, entry: Entry) -> list[Event]:
        if entry.event == "done":
            return self._finish(ending(entry.data))
        # No closing events: what is open must not look finished.
        self._items.break_off()
        self._status = entry.event
        if entry.event == "failed":
            self._ending = {"error": failure(entry.data)}
        # OpenAI has no event of its own for a cancelled response.
        return [output.Failed(self.response())]

    def _finish(self, end: Ending) -> list[Event]:
        reason = next((each.finish_reason for each in end.ends if each.index == 0), end.finish_reason)
        is_whole = reason not in _REASONS
        self._status = "completed" if is_whole else "incomplete"
        self._ending = {"usage": usage(end.usage)}
        if not is_whole:
            self._ending["incomplete_details"] = {"reason": _REASONS[reason]}
        last: type[Lifecycle] = output.Completed if is_whole else output.Incomplete
        return [*self._items.close(self._status), last(self.response())]
