"""Entries and their codec: the only module that knows how an entry is encoded. Pure.

An entry is JSON, `["", {"text": " The"}]`: the event's name and its data. The log and the live channel carry the same
bytes, so an entry is encoded once, and spliced rather than decoded on its way to readers.

In the log each entry is a `LINE`. Compact JSON has neither tabs nor line feeds.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from everstream.errors import EverstreamError, GenerationCancelled, GenerationFailed

TERMINAL = frozenset({"done", "cancelled", "failed"})
TOKEN = ""
"""The event name of model output: SSE's default event, so that a page's `onmessage` gets it."""


class Entry(msgspec.Struct, gc=False):
    """Entry n of a generation, counted from 1. `data` and `resume` are JSON."""

    n: int
    event: str
    data: bytes
    resume: bytes = b""

    @property
    def is_terminal(self) -> bool:
        return self.event in TERMINAL


class _Text(msgspec.Struct, gc=False):
    text: msgspec.Raw


class _PlainText(msgspec.Struct, gc=False):
    text: str


LINE = b"%b\t%b\t%d\n"
"""Of a log: the entry, what the model needs to resume after it, and n. So the last bytes tell how many there are."""
TAIL_BYTES = 20
"""More than n takes, with its tab and line feed."""

_pair_decoder = msgspec.json.Decoder(tuple[str, msgspec.Raw])
_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_live_decoder = msgspec.json.Decoder(list[tuple[str, int, msgspec.Raw]])
_text_decoder = msgspec.json.Decoder(_Text)
_plain_text_decoder = msgspec.json.Decoder(_PlainText)
_TOKEN_BEFORE, _TOKEN_AFTER = b'["",', b"]"
_TEXT_BEFORE, _TEXT_AFTER = b'{"text":"', b'"}'
_match_text = re.compile(rb'\[\["",\{"text":("[^"\\]*+(?:\\.[^"\\]*+)*+")\}\]\]').fullmatch

encode_json = msgspec.json.Encoder().encode
"""Compact JSON, without line breaks."""


def encode_entry(event: str, data: Any) -> bytes:
    return encode_json((event, data))


def encode_token(output: bytes) -> bytes:
    """The entry for a model's output, which is already JSON."""
    return _TOKEN_BEFORE + output + _TOKEN_AFTER


def token_data(entry: bytes) -> bytes | None:
    """The output in an entry, without a full decode; None if the entry holds something else."""
    return entry[len(_TOKEN_BEFORE) : -len(_TOKEN_AFTER)] if entry.startswith(_TOKEN_BEFORE) else None


def decode_entry(n: int, entry: bytes, resume: bytes = b"") -> Entry:
    """Decode the fields of one line."""
    event, data = _pair_decoder.decode(entry)
    return Entry(n, event, bytes(data), resume)


def encode_lines(first: int, entries: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The lines of consecutive entries, each (entry, resume)."""
    return b"".join([LINE % (entry, resume, n) for n, (entry, resume) in enumerate(entries, first)])


def decode_lines(lines: bytes, first: int, *, has_resume: bool = True) -> list[Entry]:
    """The entries from n = `first`. Raises ValueError if they are others. `has_resume`: with what models need to
    resume."""
    *whole, rest = lines.split(b"\n")
    fields = [line.split(b"\t") for line in whole]
    if rest or [each[2:] for each in fields] != [[b"%d" % n] for n in range(first, first + len(fields))]:
        raise ValueError(f"the log's lines do not continue at entry {first}")
    return [decode_entry(n, entry, resume if has_resume else b"") for n, (entry, resume, _) in enumerate(fields, first)]


def last_n(tail: bytes) -> int:
    """The n of a log's last entry, from its last TAIL_BYTES. Raises ValueError if this is no log."""
    return int(tail[tail.rindex(b"\t") + 1 : -1]) if tail else 0


def encode_live(generation: bytes, first: int, entries: Sequence[bytes]) -> bytes:
    """One generation's part of a message of the live channel: its id, its first n, and entries as the log has them."""
    return b'["%b",%d,[%b]]' % (generation, first, b",".join(entries))


def join_live(parts: Sequence[bytes]) -> bytes:
    return b"[%b]" % b",".join(parts)


def decode_live(message: bytes) -> list[tuple[str, int, msgspec.Raw]]:
    """One message of the live channel: each generation's id, its first n, and the input for `split_entries`.

    Decoding takes two steps, because a web process has readers for only some of the generations.
    """
    return _live_decoder.decode(message)


def split_entries(entries: msgspec.Raw) -> list[bytes]:
    """The entries of one generation in a live message, exactly as the log has them."""
    return [bytes(entry) for entry in _entries_decoder.decode(entries)]


def text_alone(entries: msgspec.Raw, max_bytes: int) -> bytes | None:
    """The text in the input for `split_entries`, as a JSON string with its quotes, if it holds one entry, whose output
    is text and nothing else, as most do. None: it holds anything else, or more than `max_bytes`."""
    # A JSON array is never the beginning of another one, so cutting at `max_bytes` makes no false match.
    found = _match_text(entries, 0, max_bytes)
    return found and found[1]


def text_literal(output: bytes) -> bytes | None:
    """The `text` of an output as a JSON string, with its quotes; None if it is missing or not a string."""
    try:
        text = bytes(_text_decoder.decode(output).text)
    except msgspec.ValidationError:
        return None
    return text if text.startswith(b'"') else None


def text_of(output: bytes) -> str | None:
    """The `text` of an output; None if it is missing or not a string."""
    try:
        return _plain_text_decoder.decode(output).text
    except msgspec.ValidationError:
        return None


def string_or_json(data: bytes) -> str:
    """The string that this JSON is; any other value stays JSON."""
    if not data.startswith(b'"'):
        return data.decode()
    text: str = msgspec.json.decode(data, type=str)
    return text


def join_outputs(outputs: Sequence[bytes]) -> bytes:
    """Join outputs, each of which is `{"text": <string>}` and nothing else, into one."""
    texts = [output[len(_TEXT_BEFORE) : -len(_TEXT_AFTER)] for output in outputs]
    return _TEXT_BEFORE + b"".join(texts) + _TEXT_AFTER


def compact(entries: Sequence[Entry]) -> list[Entry]:
    """The same text in fewer entries: outputs in a row that hold nothing else become two, the first of them and the
    rest, with the n of the last.

    The first stays as it is, because in some formats it is more than one event. So does an output without text, because
    it is none. So each joined output would have been one event.
    """
    made: list[Entry] = []
    for is_text, group in itertools.groupby(entries, _is_only_text):
        first, *rest = group
        made.append(first)
        if is_text and rest:
            made.append(Entry(rest[-1].n, TOKEN, join_outputs([entry.data for entry in rest])))
        else:
            made += rest
    return made


def _is_only_text(entry: Entry) -> bool:
    text = text_literal(entry.data) if entry.event == TOKEN else None
    if text is None or text == b'""':
        return False
    return len(entry.data) == len(_TEXT_BEFORE) + len(text) - 2 + len(_TEXT_AFTER)


def join_lists(lists: Sequence[bytes]) -> bytes:
    """Join JSON arrays, none of which is empty, into one."""
    return b"[" + b",".join(each[1:-1] for each in lists) + b"]"


def failure(end: Entry) -> EverstreamError:
    """The error that a terminal entry other than `done` stands for."""
    said = msgspec.json.decode(end.data)
    if end.event == "cancelled":
        return GenerationCancelled(f"the generation was stopped before it ended ({said.get('reason')})")
    return GenerationFailed(said["message"], param=said.get("param"), code=said["code"])
