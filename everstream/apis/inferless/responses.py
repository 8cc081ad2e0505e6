"""Non-streaming responses, written while the outputs are read. Pure: log entries in, JSON out."""

from collections.abc import Iterator

import msgspec

from everstream.apis.inferless import outputs
from everstream.apis.inferless.encoders import GenerateEncoder, InferEncoder
from everstream.log.entries import Entry, encode_json


def infer(encoder: InferEncoder, entries: Iterator[Entry], *, with_ids: bool) -> Iterator[bytes]:
    """One object with the tensors of all outputs, in order. `with_ids`: each tensor names its output."""
    yield encoder.head + b',"outputs":['
    separator = b""
    for entry in entries:
        for tensor in outputs.tensors(entry.data, encoder.wanted):
            if with_ids:
                tensor["parameters"] = {"event_id": f"{encoder.generation}.{entry.n}"}
            yield separator + encode_json(tensor)
            separator = b","
    yield b"]}"


def generate(encoder: GenerateEncoder, entries: Iterator[Entry], end: Entry) -> Iterator[bytes]:
    """One object whose `text_output` is all outputs' text, joined."""
    yield encoder.head + b'"'
    for entry in entries:
        yield outputs.text(entry.data)[1:-1]
    said = msgspec.json.decode(end.data)
    yield b'",' + encode_json({"id": encoder.generation, "done": True, **said})[1:]
