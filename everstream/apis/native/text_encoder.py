"""Our own events, but with the text itself as the data of the default event: what a page's `onmessage` can show as it
is. Pure. Made by `formats`.

An output without text is its JSON. An output whose text is empty is an event all the same, so that the ids are
those of all other formats.
"""

from everstream.log.entries import text_of
from everstream.web.event_encoder import EventEncoder
from everstream.web.sse import text_lines


class TextEncoder(EventEncoder):
    format = "text"

    def token(self, n: int, data: bytes) -> bytes:
        text = text_of(data)
        if text is None:
            return super().token(n, data)
        return b"id: %b.%d%b\n%b\n" % (self._id, n, self._suffix, text_lines(text))
