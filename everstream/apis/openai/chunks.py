"""OpenAI's wire format: log entries as chunks of a streamed completion. Pure.

Each chunk's event id is that of its entry, so a client that returns with `Last-Event-ID` continues where it left off.
Clients that read lines rather than events get no ids: they take `data: {...}` and an empty line for a chunk, and
nothing else. The format matches that of vLLM's server.

Besides chunks there are only comments, never followed by an empty line. Once OpenAI's Python client has seen an `id` or
a `retry`, it takes an empty line for an event, whose empty data it can't parse.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from everstream.apis.openai.errors import error_body
from everstream.apis.openai.requests import own_param
from everstream.contract.chat_outputs import Choice, ChoiceEnd, ToolCall, ending, has_choices, pieces
from everstream.errors import EverstreamError, ShuttingDown
from everstream.log.entries import TOKEN, Entry, encode_json, failure, text_literal
from everstream.log.records import Generation
from everstream.web import sse
from everstream.web.parts_encoder import PartsEncoder

DONE = b"[DONE]"
INTERRUPTED = "this process is shutting down; send the request again"


class ChunkFormat(msgspec.Struct, frozen=True):
    """What a client wants. `has_ids`: it reads Server-Sent Events by the standard."""

    is_chat: bool
    include_usage: bool = False
    has_ids: bool = False


class ChunkEncoder(PartsEncoder):
    """An `Encoder` of one generation, as chunks of a chat completion or of a plain one."""

    needs_all = False

    def __init__(self, generation: Generation, wanted: ChunkFormat) -> None:
        super().__init__(generation.id, has_ids=wanted.has_ids)
        self.format = repr(wanted)
        self._wanted = wanted
        self._head: dict[str, Any] = {
            "id": f"{'chatcmpl' if wanted.is_chat else 'cmpl'}-{generation.id}",
            "object": "chat.completion.chunk" if wanted.is_chat else "text_completion",
            "created": generation.created,
            "model": generation.model,
        }
        # Encode the bytes around a token once, because only the text differs between tokens.
        before, self._after = self._chunk(Choice(text=_MARK)).split(b'"' + _MARK.encode() + b'"')
        self._before = _frame(before)
        self._after += b"\nid: " + generation.id.encode() + b".%d\n\n" if wanted.has_ids else b"\n\n"

    def start(self, retry_ms: int, *, is_new: bool) -> bytes:  # noqa: ARG002 - see the module's docstring
        # Without bytes, the server sends the headers alone.
        return sse.GREETING if self._has_ids else b""

    @property
    def heartbeat(self) -> bytes:
        return self._note(b"heartbeat")

    def reconnect(self, retry_ms: int) -> bytes:  # noqa: ARG002 - likewise
        if self._has_ids:
            return b": come back\n"
        # Its client can't come back, and might take the end of the stream for the end of the answer.
        return _frame(encode_json(error_body(ShuttingDown(INTERRUPTED)))) + b"\n\n"

    def token(self, n: int, data: bytes) -> bytes:
        if n == 1 or has_choices(data):
            return self._framed(n, list(self._token(n, data)), _frame)
        return self.text(n, _text(data))

    def text(self, n: int, text: bytes) -> bytes:
        if n == 1:
            return super().text(n, text)
        return self._before + text + (self._after % n if self._has_ids else self._after)

    def entry(self, entry: Entry) -> bytes:
        if entry.event == TOKEN:
            return self.token(entry.n, entry.data)
        if entry.is_terminal:
            return self._framed(entry.n, [*self._opening(entry.n), *self._end(entry)], _frame)
        return self._note(entry.event.encode()) + self._framed(entry.n, list(self._opening(entry.n)), _frame)

    def queued(self, place: sse.Queued) -> bytes:
        return self._note(b"queued %d" % place.position)

    def lost(self, error: EverstreamError) -> bytes:
        return self._gone(_frame(encode_json(error_body(error))))

    def _opening(self, n: int) -> Iterator[bytes]:
        """A chat's first chunk. It comes with the first entry, because benchmarks take it for the first token."""
        if n == 1 and self._wanted.is_chat:
            yield self._chunk(Choice(role="assistant"))

    def _token(self, n: int, data: bytes) -> Iterator[bytes]:
        yield from self._opening(n)
        for piece in pieces(data):
            yield self._chunk(piece)

    def _end(self, entry: Entry) -> Iterator[bytes]:
        if entry.event != "done":
            # Without [DONE], as nothing has been completed.
            yield encode_json(error_body(self._failure(entry)))
            return
        said = ending(entry.data)
        for end in said.ends:
            yield self._chunk(Choice(end.index), end=end)
        if self._wanted.include_usage:
            yield encode_json({**self._head, "choices": [], "usage": said.usage})
        yield DONE

    def _failure(self, entry: Entry) -> EverstreamError:
        error = failure(entry)
        if not self._wanted.is_chat:
            error.param = own_param(error.param)
        return error

    def _chunk(self, piece: Choice, *, end: ChoiceEnd | None = None) -> bytes:
        choice: dict[str, Any] = {"index": piece.index}
        if self._wanted.is_chat:
            choice["delta"] = delta(piece)
        else:
            choice["text"] = piece.text
        choice |= {"logprobs": piece.logprobs, "finish_reason": end.finish_reason if end else None}
        if end:
            choice["stop_reason"] = end.stop_reason
        if piece.token_ids:
            choice["token_ids"] = piece.token_ids
        chunk = {**self._head, "choices": [choice]}
        if piece.prompt_token_ids is not None:
            (chunk if self._wanted.is_chat else choice)["prompt_token_ids"] = piece.prompt_token_ids
        if piece.prompt_text is not None:
            chunk["prompt_text"] = piece.prompt_text
        return encode_json(chunk)


def _frame(data: bytes) -> bytes:
    """Without its id, which comes after it."""
    return b"data: " + data


def delta(piece: Choice) -> dict[str, Any]:
    """A piece of a chat's message."""
    said: dict[str, Any] = {"role": piece.role} if piece.role else {}
    if piece.text or piece.role:
        said["content"] = piece.text
    if piece.reasoning:
        said["reasoning"] = piece.reasoning
    if piece.tool_calls:
        said["tool_calls"] = [_tool_call(call) for call in piece.tool_calls]
    return said


def _tool_call(piece: ToolCall) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": piece.function.arguments}
    if piece.function.name is not None:
        function["name"] = piece.function.name
    first = {} if piece.id is None else {"id": piece.id, "type": "function"}
    return {"index": piece.index, **first, "function": function}


_MARK = "5f0c8a1e9b7d4c23"
"""Marks where a token's text goes. No model has this name."""


def _text(output: bytes) -> bytes:
    """An output's text as a JSON string; if it has none, the output's JSON as a string."""
    return text_literal(output) or encode_json(output.decode())
