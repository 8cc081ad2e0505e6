"""One generation's entries from one live message, encoded once for all its readers. Made by `follower`."""

from everstream.log.entries import Entry, decode_entry, token_data
from everstream.web.direct_writer import http_chunk
from everstream.web.sse import Encoder

MAX_CHUNK_BYTES = 16 << 10
"""A longer chunk goes through the stream's greenlet, which sends it in pieces."""


class LiveBatch:
    __slots__ = ("_chunks", "_decoded", "_entries", "_tokens", "first", "last")

    def __init__(self, first: int, entries: list[bytes]) -> None:
        self.first, self.last = first, first + len(entries) - 1
        self._entries = entries
        self._chunks: dict[str, bytes] = {}
        self._decoded: list[Entry] = []
        self._tokens = [token_data(entry) for entry in entries]

    @property
    def entries(self) -> list[Entry]:
        """Decoded once for all cursors, which then share the memory of a large one."""
        if not self._decoded:
            self._decoded = [decode_entry(n, entry) for n, entry in enumerate(self._entries, self.first)]
        return self._decoded

    def chunk(self, encoder: Encoder) -> bytes:
        """The bytes for all readers with this format. Empty: the batch must go through the streams' greenlets."""
        chunk_bytes = self._chunks.get(encoder.format)
        if chunk_bytes is None:
            chunk_bytes = self._chunks[encoder.format] = self._make_chunk(encoder)
        return chunk_bytes

    def _make_chunk(self, encoder: Encoder) -> bytes:
        if sum(map(len, self._entries)) > MAX_CHUNK_BYTES:
            # Don't encode a large output in vain.
            return b""
        events = []
        for n, data in enumerate(self._tokens, self.first):
            if data is None:
                # Usually a terminal entry, which the stream's greenlet has to act on.
                return b""
            events.append(encoder.token(n, data))
        body = b"".join(events)
        return http_chunk(body) if len(body) <= MAX_CHUNK_BYTES else b""
