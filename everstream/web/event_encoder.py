"""Everstream's own events, for EventSource, and the base of encoders that differ in some of them. Pure: entries in,
bytes out."""

from everstream.errors import EverstreamError, InvalidInput
from everstream.log.entries import TOKEN, Entry, encode_json
from everstream.web.sse import GONE, GREETING, HEARTBEAT, EngineState, EventId, Queued, event, retry


class EventEncoder:
    """An `Encoder` of one generation. A subclass with other events needs a `format` of its own."""

    format = "events"
    heartbeat = HEARTBEAT
    shows_engines = False
    needs_all = False

    def __init__(self, generation: str, model: str = "", signature: str = "") -> None:
        """`signature`: at the end of each id, as `access.signed` has it."""
        self.generation = generation
        self._id = generation.encode()
        self._suffix = f".{signature}".encode() if signature else b""
        # Readers with other signatures need other bytes.
        self.format += signature
        self._model = model

    def resume(self, seen: EventId) -> None:
        if seen.part is not None:
            raise InvalidInput("Last-Event-ID belongs to another format than this one", param="Last-Event-ID")

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:
        head = GREETING + retry(retry_ms)
        return head + event("open", self.opening(), self._event_id(0)) if is_new else head

    def opening(self) -> bytes:
        """The data of `open`."""
        return encode_json({"generation": self.generation, "model": self._model})

    def reconnect(self, retry_ms: int) -> bytes:
        return retry(retry_ms)

    def token(self, n: int, data: bytes) -> bytes:
        return b"id: %b.%d%b\ndata: %b\n\n" % (self._id, n, self._suffix, data)

    def text(self, n: int, text: bytes) -> bytes:
        return self.token(n, b'{"text":%b}' % text)

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        return event(entry.event, entry.data, self._event_id(entry.n))

    def queued(self, place: Queued) -> bytes:
        return event("queued", encode_json(place._asdict()))

    def engine(self, state: EngineState) -> bytes:  # noqa: ARG002 - silent unless `shows_engines`
        return b""

    def lost(self, error: EverstreamError) -> bytes:
        return event("failed", encode_json({"code": error.code, "message": error.message}), self._event_id(GONE))

    def _event_id(self, n: int | str) -> str:
        return f"{self.generation}.{n}{self._suffix.decode()}"
