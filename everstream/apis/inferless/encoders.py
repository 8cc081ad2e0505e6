"""The Server-Sent Events of `infer` and `generate_stream`. Pure: entries in, bytes out.

`infer` has Everstream's own events; only its outputs are responses of the Open Inference Protocol. Clients of
`generate_stream` read nothing but `data`, so there each `data` is a response, and what is none is a comment.
"""

from typing import Any

import msgspec

from everstream.apis.inferless import outputs
from everstream.errors import EverstreamError
from everstream.log.entries import TOKEN, Entry, encode_json
from everstream.log.records import Generation
from everstream.web.event_encoder import EventEncoder
from everstream.web.sse import GONE, Queued, event

VERSION = "1"
"""Of every model."""


class InferEncoder(EventEncoder):
    """`request_id`: the request's own id, which each response repeats."""

    def __init__(self, generation: Generation, *, request_id: str, wanted: tuple[str, ...]) -> None:
        super().__init__(generation.id, generation.model)
        head = {"id": request_id or generation.id, "model_name": generation.model, "model_version": VERSION}
        self.head = encode_json(head)[:-1]
        """The beginning of each response."""
        self.wanted = wanted
        self.format = f"infer {request_id!r} {wanted!r}"

    def token(self, n: int, data: bytes) -> bytes:
        return super().token(n, outputs.response(self.head, data, self.wanted))


class GenerateEncoder(EventEncoder):
    """With Triton's `text_output` and KServe's `done`."""

    format = "generate"

    def __init__(self, generation: Generation) -> None:
        super().__init__(generation.id, generation.model)
        names = {"model_name": generation.model, "model_version": VERSION}
        self.head = encode_json(names)[:-1] + b',"text_output":'
        """The beginning of each response, up to the text."""

    def opening(self) -> bytes:
        return self._response(b'""')

    def token(self, n: int, data: bytes) -> bytes:
        return super().token(n, self._response(outputs.text(data)))

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        if not entry.is_terminal:
            return b": %b\n\n" % entry.event.encode()
        return event(entry.event, self._end(entry), f"{self.generation}.{entry.n}")

    def _end(self, entry: Entry) -> bytes:
        said = msgspec.json.decode(entry.data)
        if entry.event == "done":
            return self._response(b'""', done=True, **said)
        message = said.get("message") or f"the generation was stopped ({said.get('reason')})"
        return encode_json({"error": message, "code": said.get("code", entry.event)})

    def queued(self, place: Queued) -> bytes:
        return b": queued %d\n\n" % place.position

    def lost(self, error: EverstreamError) -> bytes:
        data = encode_json({"error": error.message, "code": error.code})
        return event("failed", data, f"{self.generation}.{GONE}")

    def _response(self, text: bytes, *, done: bool = False, **more: Any) -> bytes:
        return self.head + text + b"," + encode_json({"done": done, **more})[1:]
