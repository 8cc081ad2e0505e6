"""One generation's entries from one live message, encoded once for all its readers. Made by `follower`."""

import msgspec

from everstream.log.entries import Entry, decode_entry, split_entries, text_alone, token_data
from everstream.web.direct_writer import http_chunk
from everstream.web.sse import Encoder

MAX_CHUNK_BYTES = 16 << 10
"""A longer chunk goes through the stream's greenlet, which sends it in pieces."""


class LiveBatch:
    """`entries`: the input for `split_entries`, which most batches don't need."""

    __slots__ = ("_chunks", "_decoded", "_entries", "_raw", "_text", "first", "last")

    def __init__(self, first: int, entries: msgspec.Raw) -> None:
        self._raw = entries
        self._text = text_alone(entries, MAX_CHUNK_BYTES)
        self._entries = [] if self._text else split_entries(entries)
        self.first, self.last = first, first if self._text else first + len(self._entries) - 1
        self._chunks: dict[str, bytes] = {}
        self._decoded: list[Entry] = []

    @property
    def entries(self) -> list[Entry]:
        """Decoded once for all cursors, which then share the memory of a large one."""
        if not self._decoded:
            entries = self._entries or split_entries(self._raw)
            self._decoded = [decode_entry(n, entry) for n, entry in enumerate(entries, self.first)]
        return self._decoded

    def chunk(self, encoder: Encoder) -> bytes:
        """The bytes for all readers with this format. Empty: the batch must go through the streams' greenlets."""
        chunk_bytes = self._chunks.get(encoder.format)
        if chunk_bytes is None:
            chunk_bytes = self._chunks[encoder.format] = self._make_chunk(encoder)
        return chunk_bytes

    def _make_chunk(self, encoder: Encoder) -> bytes:
        body = encoder.text(self.first, self._text) if self._text else self._body(encoder)
        # An empty chunk would end the response.
        return http_chunk(body) if 0 < len(body) <= MAX_CHUNK_BYTES else b""

    def _body(self, encoder: Encoder) -> bytes:
        if sum(map(len, self._entries)) > MAX_CHUNK_BYTES:
            # Don't encode a large output in vain.
            return b""
        events = []
        for n, entry in enumerate(self._entries, self.first):
            if (data := token_data(entry)) is None:
                # Usually a terminal entry, which the stream's greenlet has to act on.
                return b""
            events.append(encoder.token(n, data))
        return b"".join(events)
