"""The base of encoders that make several events of an entry, or none, and whose ids only some clients get. Pure.

Most SDKs read lines rather than events, and an `id` line disturbs some of them. So ids come after the data, and only to
clients that read Server-Sent Events by the standard. The same goes for comments.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from everstream.web import sse

E = TypeVar("E")
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

    def _gone(self, lines: bytes) -> bytes:
        """The terminal event of a stream whose log can't supply one."""
        return self._event(lines, f"{self.generation}.{sse.GONE}".encode()) if self._has_ids else lines + b"\n\n"

    def _event(self, lines: bytes, event_id: bytes) -> bytes:
        if self.is_id_first:
            return b"id: %b\n%b\n\n" % (event_id, lines)
        return b"%b\nid: %b\n\n" % (lines, event_id)
