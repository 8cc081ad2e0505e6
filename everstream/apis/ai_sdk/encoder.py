"""The wire format of a UI message stream: a generation as Server-Sent Events with one chunk each. Pure.

A client counts the chunks that it has seen, and comes back for those from that number on. What the chunks of an entry
are depends on the entries before, so the encoder is given all of them.
"""

from everstream.apis.ai_sdk.chunks import AnyChunk, Error, Finish, TextDelta
from everstream.apis.ai_sdk.message_chunks import MessageChunks
from everstream.errors import EverstreamError, ResponseCut
from everstream.log.entries import Entry, encode_json
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.parts_encoder import NO_TEXT, PartsEncoder

DONE = b"[DONE]"
"""Comes after the last chunk of a complete message. It is no chunk."""


class ChunkEncoder(PartsEncoder):
    """An `Encoder` of one generation."""

    needs_all = True

    def __init__(
        self, generation: Generation, *, is_continuation: bool, has_ids: bool = False, start_index: int = 0
    ) -> None:
        """`is_continuation`: see `MessageChunks`. `has_ids`: the client reads Server-Sent Events by the standard.
        `start_index`: how many chunks it has seen."""
        super().__init__(generation.id, has_ids=has_ids)
        self.format = f"ui-message-stream {has_ids}"
        self._id = generation.id.encode()
        self._start_index = start_index
        self._made = 0
        self._chunks = MessageChunks(generation, is_continuation=is_continuation)

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - transports reconnect at once
        greeting = sse.GREETING if self._has_ids else b""
        return greeting + self._unseen(0, self._chunks.start())

    @property
    def heartbeat(self) -> bytes:
        return self._note(b"heartbeat")

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        if self._has_ids:
            return b": come back\n"
        # `useChat` takes the end of a stream for the end of the message, but not a broken connection.
        raise ResponseCut("this process is shutting down; the rest of the stream is elsewhere")

    def entry(self, entry: Entry) -> bytes:
        return self._more_text(entry) or self._unseen(entry.n, self._chunks.entry(entry))

    def queued(self, place: sse.Queued) -> bytes:
        return self._note(b"queued %d" % place.position)

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(encode_json(Error(error.message))))

    def _unseen(self, n: int, chunks: list[AnyChunk]) -> bytes:
        """Those of entry n's chunks that the client has not seen, by its event id or by their numbers."""
        seen = min(max(self._start_index - self._made, 0), len(chunks))
        self._made += len(chunks)
        end = [DONE] if chunks and isinstance(chunks[-1], Finish) else []
        return self._framed(n, [*map(encode_json, chunks), *end], _frame, seen)

    def _more_text(self, entry: Entry) -> bytes:
        """What most tokens are: more of the open part's text. Empty: this one is not."""
        part, text = self._chunks.open_text, self._text_alone(entry)
        if part is None or not text or self._made < self._start_index:
            return b""
        self._made += 1
        delta = _BEFORE % part.encode() + text + _AFTER
        return b"%b\nid: %b.%d\n\n" % (delta, self._id, entry.n) if self._has_ids else delta + b"\n\n"


def _frame(data: bytes) -> bytes:
    """Without its id, which comes after it."""
    return b"data: " + data


_BEFORE, _AFTER = _frame(encode_json(TextDelta("%b", ""))).split(NO_TEXT)
