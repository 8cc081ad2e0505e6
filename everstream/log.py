"""The log: what web and engine share. Names of keys, shapes of entries, the scripts; no I/O.

`web_log` (sync, under gevent) and `engine_log` (asyncio) are the two clients.

Keys, all with one hash tag so that a cluster keeps them in one slot:

    {ns}:jobs        stream with the consumer group `engines`: the queue. A claimed job is a pending entry: the lease.
    {ns}:gen:<id>    hash: state (open, or how it ended), model, job_id, digest, request_key, stop; entries_bytes;
                     `Job` while it is open
    {ns}:log:<id>    stream: entry n has the id n-0. Field `entry` is what readers see, `resume` what the model
                     needs to go on after an engine's death.
    {ns}:read        sorted set: when each open generation was last read, by the server's clock, in ms
    {ns}:finished    sorted set: when each finished generation ended, by the same
    {ns}:sizes       hash: about how many bytes each generation takes; {ns}:bytes is the sum
    {ns}:probe:…     what `/readyz` tries to write, for a moment
    {ns}:counters    hash: `counters` below
    {ns}:live        channel: what was just appended, [[generation, first n, [entry, ...]], ...]
    {ns}:control     channel: a generation that is to stop
    {ns}:req:<id>    the generation that a request id started
    {ns}:engine:<name>  what an engine says of itself
    {ns}:engine_names   sorted set: until when what each of them said holds, by the server's clock, in ms
    {ns}:waiting_asks   sorted set: questions about inputs, by when their askers give up, by the same
    {ns}:waiting_long_asks  the same about long text
    {ns}:ask:<id>    such a question (`Ask`), until then; {ns}:answer:<id> is the list that its answer is put on
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

GROUP = "engines"
LONG_TEXT_BYTES = 32 << 10
"""Text that takes a tokenizer tens of milliseconds and more. What is shorter does not wait for it."""
ASK_TIMEOUT_S = 4
"""Of a question about inputs. Below the web side's command timeout, under which the wait for an answer runs, too."""
TERMINAL = frozenset({"done", "cancelled", "failed"})
TOKEN = ""
"""The event name of model output: SSE's default event, so that a page's `onmessage` gets it."""


COUNTERS = {
    "streams": "event streams begun",
    "resumes": "event streams begun after an entry that the client had seen",
    "streams_refused": "event streams refused because the worker had its full number",
    "streams_stalled": "connections cut because the client took nothing for the send timeout",
    "gaps_healed": "gaps in what was heard live that were read from the log",
    "entries_refused": "entries refused because another engine had the generation, or it had ended",
    "leases_taken_over": "generations claimed from an engine that had let their lease run out",
    "generations_started": "generations queued",
    "generations_done": "generations that ended by themselves",
    "generations_cancelled": "generations that were stopped or abandoned",
    "generations_failed": "generations that failed",
    "generations_evicted": "finished generations dropped before their time because the log was full",
}
"""What is counted for operations, over all processes, for as long as the log lives."""


GAUGES = {
    "engines": "engines with the model loaded",
    "generations_running": "generations that engines have at this moment",
    "generations_queued": "generations that no engine has claimed",
    "log_bytes": "about what the log takes in Valkey's memory",
}
"""What is measured for operations, now."""


class Entry(msgspec.Struct, gc=False):
    """Entry n of a generation, counted from 1. `data` and `resume` are JSON."""

    n: int
    event: str
    data: bytes
    resume: bytes = b""

    @property
    def is_terminal(self) -> bool:
        return self.event in TERMINAL


class Page(msgspec.Struct, frozen=True):
    """A stretch of a generation's log. `top` is the n of its last entry at that time."""

    entries: list[Entry]
    top: int


class Job(msgspec.Struct, frozen=True):
    """What an engine is to do. `flush_ms`: outputs that come within so many milliseconds are one entry."""

    inputs: dict[str, Any]
    flush_ms: int = 0


class Generation(msgspec.Struct, frozen=True):
    """A generation as the log knows it. `state`: open, done, cancelled, failed. `top` is its last entry's n.

    `created` is when it was queued, in Unix seconds. `digest` is the `digest` of its inputs.
    """

    id: str
    state: str
    model: str
    top: int
    created: int = 0
    digest: str = ""


class Fit(msgspec.Struct, frozen=True):
    """What could fit into a model's context at most, whatever the text: `max_bytes` in UTF-8 of each of these inputs.

    Bytes in `dropped` don't count: the tokenizer leaves them out.
    """

    inputs: list[str]
    max_bytes: int
    dropped: list[int] = []

    def exceeded_by(self, text: str) -> bool:
        return len(text.encode().translate(None, bytes(self.dropped))) > self.max_bytes


class EngineStatus(msgspec.Struct, frozen=True):
    """What an engine says of itself. `state`: loading, ready, failed (then `error` is for people, and `code` is
    model_failed or log_error).

    `running` counts its generations, `model_requests` is the model's own count, if it has one.

    `parent` is the pid of what started the process: a launcher's restarts have the same one.
    """

    name: str
    state: str
    model: str
    error: str = ""
    code: str = "model_failed"
    max_model_len: int | None = None
    running: int = 0
    model_requests: int | None = None
    parent: int = 0
    fit: Fit | None = None


class Ask(msgspec.Struct, frozen=True):
    """A question to any ready engine: could the model take these inputs? `reply` is the list to answer on."""

    reply: str
    inputs: dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """Empty `message`: it could. `is_bug`: nobody knows, as the model's own check broke."""

    message: str = ""
    param: str | None = None
    code: str = "invalid_request"
    is_bug: bool = False


class Keys:
    """Names of keys under one namespace."""

    def __init__(self, namespace: str) -> None:
        self.ns = f"{{{namespace}}}:"
        self.jobs = self.ns + "jobs"
        self.live = self.ns + "live"
        self.control = self.ns + "control"
        self.counters = self.ns + "counters"
        self.bytes = self.ns + "bytes"

    def generation(self, generation: str) -> str:
        return f"{self.ns}gen:{generation}"

    def log(self, generation: str) -> str:
        return f"{self.ns}log:{generation}"

    def request(self, request_id: str) -> str:
        return f"{self.ns}req:{request_id}"

    def engine(self, name: str) -> str:
        return f"{self.ns}engine:{name}"

    def asks(self, *, long: bool) -> str:
        return self.ns + ("waiting_long_asks" if long else "waiting_asks")

    def ask(self, ask: str) -> str:
        return f"{self.ns}ask:{ask}"

    def answer(self, ask: str) -> str:
        return f"{self.ns}answer:{ask}"


@cache
def script(name: str, flags: str = "") -> str:
    """The Lua source of `lua/<name>.lua`, with what all scripts share before it."""
    folder = Path(__file__).parent / "lua"
    shebang = [f"#!lua flags={flags}"] if flags else []
    return "\n".join(shebang + [(folder / f"{part}.lua").read_text() for part in ("prelude", name)])


def keepalive(url: str) -> dict[str, Any]:
    """Options of a connection that waits without a read timeout: so that a dead peer is noticed."""
    return {} if url.startswith("unix:") else {"socket_keepalive": True}


_Pair = tuple[str, msgspec.Raw]
_pair_decoder = msgspec.json.Decoder(_Pair)
_entries_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_TOKEN_BEFORE, _TOKEN_AFTER = b'["",', b"]"
_live_decoder = msgspec.json.Decoder(list[tuple[str, int, msgspec.Raw]])


encode_json = msgspec.json.Encoder().encode
"""Compact JSON, without line breaks."""


def digest(inputs: dict[str, Any]) -> str:
    """Equal for equal inputs, whatever the order of their names."""
    return hashlib.sha256(msgspec.json.encode(inputs, order="deterministic")).hexdigest()


def encode_entry(event: str, data: Any) -> bytes:
    """`["", {"text": " The"}]`: as it stands in the log and travels live."""
    return encode_json((event, data))


def decode_entry(n: int, entry: bytes, resume: bytes = b"") -> Entry:
    """From the fields of an element of the stream."""
    event, data = _pair_decoder.decode(entry)
    return Entry(n, event, bytes(data), resume)


def decode_live(message: bytes) -> list[tuple[str, int, msgspec.Raw]]:
    """From one message of the live channel: what was appended, as generation, first n, and what `split_entries` takes.

    In two steps, as a process has readers for some of the generations only.
    """
    return _live_decoder.decode(message)


def split_entries(entries: msgspec.Raw) -> list[bytes]:
    """The entries of one generation in a live message, as they stand in the log."""
    return [bytes(entry) for entry in _entries_decoder.decode(entries)]


def token_data(entry: bytes) -> bytes | None:
    """The data of an entry that holds model output, without a full decode; None: it is another."""
    return entry[len(_TOKEN_BEFORE) : -len(_TOKEN_AFTER)] if entry.startswith(_TOKEN_BEFORE) else None
