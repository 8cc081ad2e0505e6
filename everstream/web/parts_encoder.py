"""The base of encoders that make several events of an entry, or none, and whose ids only some clients get. Pure.

Most SDKs read lines rather than events, and an `id` line disturbs some of them. So ids and comments go only to clients
that read Server-Sent Events by the standard. Ids come after the data, unless the format's clients want them first.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from everstream.contract.chat_outputs import has_choices
from everstream.log.entries import TOKEN, Entry, text_literal
from everstream.web import sse

E = TypeVar("E")
NO_TEXT = b'""'
SILENT_LINE = b" \n"
"""Nothing, for clients that read lines. A blank line would be an event without data for some of them. A comment would
hide what follows from those that strip each piece they read and join the pieces (`vllm bench serve`). By the standard
it is an unknown field, which readers ignore."""


class PartsEncoder:
    """Part of an `Encoder`. `has_ids`: whether the client gets ids."""

    shows_engines = False
    is_id_first = False
    """For clients that take an id for that of the next line with data."""

    def __init__(self, generation: str, *, has_ids: bool) -> None:
        self.generation = generation
        self._has_ids = has_ids
        self._seen = sse.EventId(generation, -1)

    def resume(self, seen: sse.EventId) -> None:
        self._seen = seen

    def entry(self, entry: Entry) -> bytes:
        raise NotImplementedError

    def token(self, n: int, data: bytes) -> bytes:
        return self.entry(Entry(n, TOKEN, data))

    def text(self, n: int, text: bytes) -> bytes:
        return self.token(n, b'{"text":%b}' % text)

    def engine(self, state: sse.EngineState) -> bytes:  # noqa: ARG002 - see `shows_engines`
        return b""

    def _note(self, text: bytes) -> bytes:
        """A line that is no event: a comment, or nothing to see for a client that might trip over one."""
        return b": %b\n" % text if self._has_ids else SILENT_LINE

    def _framed(self, n: int, events: Sequence[E], frame: Callable[[E], bytes], seen: int = 0) -> bytes:
        """Those of entry n's events that the client has not seen. `frame` makes an event's lines, without its id and
        its empty line. `seen`: the client has seen at least so many of them."""
        seen = max(seen, self._seen.seen_of(n, len(events)))
        lines = [frame(event) for event in events[seen:]]
        if not self._has_ids:
            return b"".join(each + b"\n\n" for each in lines)
        parts = [f"-{part}" for part in range(seen, len(events) - 1)] + [""]
        ids = [f"{self.generation}.{n}{part}".encode() for part in parts[: len(lines)]]
        return b"".join(map(self._event, lines, ids))

    def _text_alone(self, entry: Entry) -> bytes:
        """The JSON string of what most tokens are, text and nothing else, without decoding it. Empty: the entry is
        something else, or the client has seen it."""
        if entry.event != TOKEN or has_choices(entry.data) or entry.n <= (self._seen.n or 0):
            return b""
        text = text_literal(entry.data) or NO_TEXT
        return b"" if text == NO_TEXT else text

    def _gone(self, lines: bytes) -> bytes:
        """The terminal event of a stream whose log can't supply one."""
        return self._event(lines, f"{self.generation}.{sse.GONE}".encode()) if self._has_ids else lines + b"\n\n"

    def _event(self, lines: bytes, event_id: bytes) -> bytes:
        if self.is_id_first:
            return b"id: %b\n%b\n\n" % (event_id, lines)
        return b"%b\nid: %b\n\n" % (lines, event_id)
